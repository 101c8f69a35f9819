"""Tool calls in streams: in every protocol, in notations with and without JSON, whole, cut off and broken.

  test_tools.py [-v]

The notations' own tests are tests/unit/test_output.c. The model that ships calls no tools by itself; a grammar tells it what to write, and the template that it gets
tells the server how to read it. What comes in pieces has to be what comes at once.
"""
import json
import os
import tempfile

import serving
from serving import Case, Server

ASK = [{"role": "user", "content": "Write it."}]
TOOLS = [{"type": "function", "function": {"name": "write_file", "parameters": {"type": "object"}}}]
ARGUMENTS = {"path": "a b.c", "text": "a\n{\n\"x\"\n\n<b> é", "n": [1, 2]}
JSON = json.dumps(ARGUMENTS, ensure_ascii=False)


def pairs(before, between, after):
    """Arguments as notations have them that write them key by key."""
    return "".join(before + key + between + (value if isinstance(value, str) else json.dumps(value)) + after
                   for key, value in ARGUMENTS.items())


# notation's sign in the template, what the model writes
NOTATIONS = {
    "hermes": ("<tool_call>", 'Now:\n<tool_call>\n{"name": "write_file", "arguments": %s}\n</tool_call>' % JSON),
    "qwen3-coder": ("<tool_call><function=", "Now:\n<tool_call>\n<function=write_file>\n"
                    + pairs("<parameter=", ">\n", "\n</parameter>\n") + "</function>\n</tool_call>"),
    "mistral-list": ("[TOOL_CALLS]", 'Now:[TOOL_CALLS][{"name": "write_file", "arguments": %s}]' % JSON),
}
CUT = '<tool_call>\n{"name": "write_file", "arguments": {"path": "a long, long name'
BROKEN = '<tool_call>\n{"name": "write_file", "arguments": {"path": oh}}\n</tool_call> after'


def grammar(text):
    return 'root ::= "%s"' % text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def template(sign):
    path = os.path.join(tempfile.mkdtemp(), "template.jinja")
    with open(path, "w", encoding="utf-8") as f:
        f.write("{# " + sign + " #}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ")
    return path


class Tools(Case):
    def joined(self, server, body):
        """Text, calls and the end of a stream of chat completions; and how many pieces of arguments there were."""
        text, calls, n, finish = "", [], 0, None
        for _, chunk in server.events("/v1/chat/completions", body)[:-1]:
            choice = chunk["choices"][0]
            text += choice["delta"].get("content") or ""
            finish = choice["finish_reason"] or finish
            for one in choice["delta"].get("tool_calls", []):
                if "id" in one:
                    self.assertEqual((one["index"], one["type"]), (len(calls), "function"))
                    calls.append({"id": one["id"], "name": one["function"]["name"], "arguments": ""})
                calls[one["index"]]["arguments"] += one["function"]["arguments"]
                n += 1
        return text, calls, finish, n

    def check_chat(self, server, body, notation):
        reply = server.post("/v1/chat/completions", body)["choices"][0]
        call = reply["message"]["tool_calls"][0]
        self.assertEqual(call["function"]["name"], "write_file")
        self.assertEqual(json.loads(call["function"]["arguments"]), ARGUMENTS)
        text, calls, finish, n = self.joined(server, body)
        self.assertEqual((text, finish), (reply["message"]["content"], reply["finish_reason"]))
        self.assertEqual((text, finish), ("Now:", "tool_calls"))
        self.assertEqual([(c["name"], c["arguments"]) for c in calls],
                         [(call["function"]["name"], call["function"]["arguments"])])
        self.assertGreater(n, 5)
        for one in (calls[0]["id"], call["id"]):
            if notation == "mistral-list":
                self.assertRegex(one, "^[0-9a-z]{9}$")
            else:
                self.assertTrue(one.startswith("call_"))

    def test_chat(self):
        for notation, (sign, text) in NOTATIONS.items():
            with self.subTest(notation), Server("--temp", "0", "--chat-template", template(sign)) as server:
                self.check_chat(server, {"messages": ASK, "tools": TOOLS, "grammar": grammar(text)}, notation)

    def test_not_whole(self):
        """A call that is cut off or makes no sense is text; a stream that had begun it says so by its end."""
        with Server("--temp", "0", "--chat-template", template("<tool_call>")) as server:
            for text, finish in ((CUT, "length"), (BROKEN, "stop")):
                body = {"messages": ASK, "tools": TOOLS, "grammar": grammar(text)}
                if finish == "length":
                    body["max_tokens"] = server.post("/v1/chat/completions", body)["usage"]["completion_tokens"] - 1
                reply = server.post("/v1/chat/completions", body)["choices"][0]
                self.assertNotIn("tool_calls", reply["message"])
                self.assertEqual(reply["finish_reason"], finish)
                self.assertTrue(text.startswith(reply["message"]["content"]))
                got, calls, end, _ = self.joined(server, body)
                self.assertEqual((got, end), (reply["message"]["content"], finish))
                self.assertEqual(calls[0]["name"], "write_file")
                self.assertIn(calls[0]["arguments"], text)

    def test_bare_objects(self):
        """Llama 3 marks no calls: an object is one if it has the name of a tool."""
        with Server("--temp", "0", "--chat-template", template("dictionary of argument name and its value")) as server:
            for name, finish in (("write_file", "tool_calls"), ("Ann", "stop")):
                text = '{"name": "%s", "parameters": %s}' % (name, JSON)
                body = {"messages": ASK, "tools": TOOLS, "grammar": grammar(text)}
                reply = server.post("/v1/chat/completions", body)["choices"][0]
                content, calls, end, _ = self.joined(server, body)
                self.assertEqual((reply["finish_reason"], end), (finish, finish))
                if finish == "stop":
                    self.assertEqual((reply["message"]["content"], content, calls), (text, text, []))
                else:
                    self.assertEqual((reply["message"]["content"], [c["arguments"] for c in calls]), (None, [JSON]))

    def test_forced(self):
        """The other protocols, and calls that are asked for; also with --reasoning-format none."""
        schema = {"type": "object", "properties": {"word": {"enum": ["long </tool_call>]"]},
                                                   "page": {"enum": [12345]}},
                  "required": ["word", "page"], "additionalProperties": False}
        want = {"word": "long </tool_call>]", "page": 12345}
        with Server("--temp", "0", "--reasoning-format", "none") as server:
            tools = [{"type": "function", "function": {"name": "look_up", "parameters": schema}}]
            body = {"messages": ASK, "tools": tools, "tool_choice": "required"}
            text, calls, finish, n = self.joined(server, body)
            self.assertEqual((text, finish, json.loads(calls[0]["arguments"])), ("", "tool_calls", want))
            self.assertGreater(n, 5)
            cut, _, finish, _ = self.joined(server, dict(body, max_tokens=12))
            whole = server.post("/v1/chat/completions", dict(body, max_tokens=12))["choices"][0]["message"]["content"]
            self.assertEqual((cut, finish), (whole, "length"))
            self.assertTrue(whole.startswith('{"name"'))

            events = server.events("/v1/messages", {
                "messages": ASK, "max_tokens": 99, "tools": [{"name": "look_up", "input_schema": schema}],
                "tool_choice": {"type": "any"}})
            kinds = [name for name, _ in events]
            parts = [d["delta"]["partial_json"] for n, d in events if n == "content_block_delta"]
            self.assertEqual(json.loads("".join(parts)), want)
            self.assertGreater(len(parts), 5)
            self.assertEqual((kinds[1], kinds[-3:]), ("content_block_start", ["content_block_stop", "message_delta",
                                                                              "message_stop"]))
            self.assertTrue(events[1][1]["content_block"]["id"].startswith("toolu_"))

            events = server.events("/v1/responses", {
                "input": "Write it.", "tools": [dict(tools[0]["function"], type="function")], "tool_choice": "required"})
            parts = [d["delta"] for n, d in events if n == "response.function_call_arguments.delta"]
            done = [d for n, d in events if n == "response.function_call_arguments.done"]
            self.assertEqual(("".join(parts), done[0]["name"]), (done[0]["arguments"], "look_up"))
            self.assertEqual(json.loads(done[0]["arguments"]), want)
            self.assertGreater(len(parts), 5)
            item = events[-1][1]["response"]["output"][0]
            self.assertEqual((item["arguments"], item["status"]), (done[0]["arguments"], "completed"))


if __name__ == "__main__":
    serving.main()
