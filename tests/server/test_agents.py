"""Requests as agents send them, Claude Code and Codex among them, written after public documentation; and what such
clients may ask of tools: only some of them, one call at a time, a schema to be kept to.

  test_agents.py [-v] [Agents]
"""
import json

import serving
from serving import Case, Server
from test_tools import grammar, template

SHELL = {"type": "object", "properties": {"command": {"type": "array", "items": {"enum": ["ls", "-l"]}, "minItems": 1,
                                                      "maxItems": 2},
                                          "timeout_ms": {"enum": [1000]}},
         "required": ["command", "timeout_ms"], "additionalProperties": False}
READ = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
        "properties": {"file_path": {"type": "string", "enum": ["/a.c", "/b.c"], "description": "The file"}},
        "required": ["file_path"], "additionalProperties": False}
ASK = [{"role": "user", "content": "What is a lamp?"}]
SCHEMA = {"type": "object", "properties": {"kind": {"enum": ["noun", "verb"]}}, "required": ["kind"],
          "additionalProperties": False}


def function(name, parameters):
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


class Agents(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--parallel", "2", "--temp", "0").wait_ready()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    # ---- Codex: /v1/responses, streamed, nothing stored ----

    def codex(self, items, **more):
        return dict({"model": "any", "instructions": "You are a coding agent. Be brief.", "input": items,
                     "tools": [{"type": "function", "name": "shell", "description": "Runs a command.", "strict": False,
                                "parameters": SHELL},
                               {"type": "custom", "name": "apply_patch", "description": "A patch.",
                                "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"x\""}},
                               {"type": "local_shell"}, {"type": "web_search", "external_web_access": False}],
                     "tool_choice": "auto", "parallel_tool_calls": False,
                     "reasoning": {"effort": "medium", "summary": "auto"}, "store": False, "stream": True,
                     "include": ["reasoning.encrypted_content"], "prompt_cache_key": "5f2c", "text": {"verbosity": "low"}},
                    **more)

    def test_codex(self):
        user = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "List the files."}]}
        told = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<sandbox>on</sandbox>"}]}
        events = self.server.events("/v1/responses", self.codex([told, user], tool_choice="required"))
        names = [name for name, _ in events]
        self.assertEqual([n for n in names if not n.endswith(".delta")],
                         ["response." + n for n in ("created", "in_progress", "output_item.added",
                                                    "function_call_arguments.done", "output_item.done", "completed")])
        self.assertEqual([data["sequence_number"] for _, data in events], list(range(len(events))))
        done = [data["item"] for name, data in events if name == "response.output_item.done"]
        self.assertEqual([(i["type"], i["name"]) for i in done], [("function_call", "shell")])
        arguments = json.loads(done[0]["arguments"])
        self.assertLessEqual(set(arguments["command"]), {"ls", "-l"})
        final = events[-1][1]["response"]
        self.assertEqual(final["output"], done)
        first = final["usage"]
        self.assertEqual(first["total_tokens"], first["input_tokens"] + first["output_tokens"])

        thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": None}
        others = [{"type": "local_shell_call", "call_id": "x", "status": "completed", "action": {"type": "exec"}},
                  {"type": "custom_tool_call", "call_id": "y", "name": "apply_patch", "input": "*** Begin Patch"},
                  {"type": "custom_tool_call_output", "call_id": "y", "output": "ok"}]
        result = {"type": "function_call_output", "call_id": done[0]["call_id"], "output": json.dumps(
            {"output": "a.c\nb.c\n", "metadata": {"exit_code": 0, "duration_seconds": 0.1}})}
        events = self.server.events("/v1/responses", self.codex([told, user, thought, done[0], result, *others],
                                                                max_output_tokens=8))
        second = events[-1][1]["response"]
        self.assertIn(second["status"], ("completed", "incomplete"))
        self.assertGreater(second["usage"]["input_tokens"], first["input_tokens"] + first["output_tokens"])
        text = "".join(data["delta"] for name, data in events if name == "response.output_text.delta")
        self.assertTrue(text)
        self.assertEqual(second["output"][-1]["content"][0]["text"], text)
        parts = dict(result, output=[{"type": "input_text", "text": "a.c"}])
        self.server.events("/v1/responses", self.codex([user, done[0], parts], max_output_tokens=1))

    def test_said(self):
        """An answer repeats what was asked for, but for what is long."""
        said = {"instructions": "Be brief.", "metadata": {"a": "b"}, "parallel_tool_calls": False, "user": "me",
                "reasoning": {"effort": "low", "summary": None}, "tool_choice": {"type": "function", "name": "look_up"},
                "tools": [{"type": "function", "name": "look_up", "parameters": SCHEMA, "strict": True}]}
        reply = self.server.post("/v1/responses", dict(said, input="x", max_output_tokens=40))
        self.assertEqual({key: reply[key] for key in said}, said)
        text = {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}
        reply = self.server.post("/v1/responses", {"input": "x", "text": text, "user": "b" * 5000})
        self.assertEqual((reply["text"], reply["tools"], reply["instructions"], reply["metadata"]), (text, [], None, {}))
        self.assertEqual(reply["user"], None)
        for stored in ({"conversation": "conv_1"}, {"prompt": {"id": "pmpt_1"}}, {"previous_response_id": "resp_1"}):
            status = 404 if "conversation" in stored else 400
            error = self.server.post("/v1/responses", dict({"input": "x"}, **stored), status)["error"]
            self.assertEqual(error["param"], list(stored)[0])

    def test_responses_logprobs(self):
        """Those of the text's tokens, as /v1/chat/completions has them; in streams each with its text, and in the
        events that end it."""
        ask = {"input": "What is a lamp?", "max_output_tokens": 12, "top_logprobs": 2,
               "include": ["reasoning.encrypted_content", "message.output_text.logprobs"]}
        want = self.server.post("/v1/chat/completions", {"messages": ASK, "max_tokens": 12, "logprobs": True,
                                                         "top_logprobs": 2})["choices"][0]["logprobs"]["content"]
        reply = self.server.post("/v1/responses", ask)
        part = reply["output"][0]["content"][0]
        self.assertEqual((part["logprobs"], reply["top_logprobs"]), (want, 2))
        self.assertEqual("".join(x["token"] for x in want), part["text"])
        events = self.server.events("/v1/responses", dict(ask, stream=True))
        came = [data for name, data in events if name == "response.output_text.delta"]
        self.assertEqual([x for data in came for x in data["logprobs"]], want)
        for data in came:
            self.assertTrue("".join(x["token"] for x in data["logprobs"]).endswith(data["delta"]))
        ends = {name: data for name, data in events if name.endswith(".done")}
        for got in (ends["response.output_text.done"], ends["response.content_part.done"]["part"],
                    ends["response.output_item.done"]["item"]["content"][0], events[-1][1]["response"]["output"][0]["content"][0]):
            self.assertEqual(got["logprobs"], want)
        self.assertEqual(self.server.post("/v1/responses", dict(ask, include=[]))["output"][0]["content"][0]["logprobs"], [])
        for wrong, param in ((dict(include=[1]), "include"), (dict(include="x"), "include"), (dict(top_logprobs=21), "top_logprobs"),
                             (dict(truncation="some"), "truncation")):
            self.assertEqual(self.server.post("/v1/responses", dict(ask, **wrong), 400)["error"]["param"], param)

    def test_responses_logprobs_of_text_only(self):
        """Tokens of reasoning and of calls have none."""
        call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
        with Server("--temp", "0", "--chat-template", template("<tool_call> <think></think>")) as server:
            ask = {"input": "x", "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
                   "grammar": grammar("<think>Hm, so.</think>Go on:" + call), "top_logprobs": 1,
                   "include": ["message.output_text.logprobs"]}
            for reply in (server.post("/v1/responses", ask),
                          server.events("/v1/responses", dict(ask, stream=True))[-1][1]["response"]):
                items = {item["type"]: item for item in reply["output"]}
                part = items["message"]["content"][0]
                self.assertIn("function_call", items)
                self.assertEqual("".join(x["token"] for x in part["logprobs"]).strip(), part["text"].strip())

    # ---- Claude Code: /v1/messages ----

    def claude(self, messages, **more):
        kept = {"cache_control": {"type": "ephemeral"}}
        return dict({"model": "any", "max_tokens": 64,
                     "system": [{"type": "text", "text": "You are an agent."}, dict({"type": "text", "text": "Be brief."}, **kept)],
                     "tools": [dict({"name": "Read", "description": "Reads a file.", "input_schema": READ}, **kept),
                               {"name": "LS", "description": "Lists.", "input_schema": {"type": "object", "properties": {}}}],
                     "metadata": {"user_id": "user_1_account__session_2"}, "temperature": 0,
                     "thinking": {"type": "enabled", "budget_tokens": 1024},
                     "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
                     "messages": messages}, **more)

    def test_claude_code(self):
        self.assertEqual(self.server.request("HEAD", "/")[0], 200)
        ask = [{"role": "user", "content": [{"type": "text", "text": "<system-reminder>Now.</system-reminder>"},
                                            {"type": "text", "text": "Read it.", "cache_control": {"type": "ephemeral"}}]}]
        forced = {"tool_choice": {"type": "tool", "name": "Read", "disable_parallel_tool_use": True}}
        count = self.server.post("/v1/messages/count_tokens?beta=true", self.claude(ask))["input_tokens"]
        events = [data for _, data in self.server.events("/v1/messages?beta=true", self.claude(ask, **forced))]
        kinds = [e["type"] for e in events]
        self.assertEqual([k for k in kinds if k not in ("content_block_delta", "ping")],
                         ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"])
        usage = events[0]["message"]["usage"]
        whole = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
        self.assertLessEqual(count, whole) # which has the beginning of the call, too
        self.assertLess(whole, count + 16)
        use = dict(events[1]["content_block"], input=json.loads("".join(
            e["delta"]["partial_json"] for e in events if e["type"] == "content_block_delta")))
        self.assertIn(use["input"]["file_path"], ("/a.c", "/b.c"))
        self.assertEqual(events[-2]["delta"]["stop_reason"], "tool_use")
        results = [{"type": "tool_result", "tool_use_id": use["id"], "is_error": True,
                    "content": [{"type": "text", "text": "<tool_use_error>none</tool_use_error>"}],
                    "cache_control": {"type": "ephemeral"}},
                   {"type": "tool_result", "tool_use_id": "toolu_other", "content": "fine"},
                   {"type": "tool_result", "tool_use_id": "toolu_empty"},
                   {"type": "text", "text": "Go on."}]
        back = ask + [{"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""},
                                                        {"type": "text", "text": "I read it."}, use]},
                      {"role": "user", "content": results}]
        reply = self.server.post("/v1/messages", self.claude(back))
        self.assertEqual(reply["content"][0]["type"], "text")
        rendered = self.server.post("/v1/messages/count_tokens", self.claude(back))["input_tokens"]
        self.assertGreater(rendered, count + 20)

    def test_output_config(self):
        config = {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"}
        reply = self.server.post("/v1/messages", {"messages": ASK, "max_tokens": 64, "output_config": config})
        self.assertIn(json.loads(reply["content"][0]["text"])["kind"], ("noun", "verb"))
        for wrong in ({"format": {"type": "xml"}}, {"format": {"type": "json_schema"}}, 5,
                      {"format": {"type": "json_schema", "schema": {"if": {}}}}):
            error = self.server.post("/v1/messages", {"messages": ASK, "max_tokens": 9, "output_config": wrong}, 400)
            self.assertEqual(error["error"]["type"], "invalid_request_error")
        tools = [{"name": "f", "input_schema": {"type": "object", "if": {}}}]
        body = {"messages": ASK, "max_tokens": 64, "tools": tools, "tool_choice": {"type": "any"}}
        self.assertNotIn("error", self.server.post("/v1/messages", body)) # any object will do
        tools[0]["strict"] = True
        self.server.post("/v1/messages", body, 400)

    # ---- tools ----

    def test_allowed_tools(self):
        tools = [function("first", SCHEMA), function("second", SCHEMA), function("third", SCHEMA)]
        choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
            {"type": "function", "function": {"name": "second"}}]}}
        reply = self.server.post("/v1/chat/completions", {"messages": ASK, "tools": tools, "tool_choice": choice})
        self.assertEqual(reply["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "second")
        flat = [dict(t["function"], type="function") for t in tools]
        choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "third"}]}
        reply = self.server.post("/v1/responses", {"input": "x", "tools": flat, "tool_choice": choice})
        self.assertEqual(reply["output"][0]["name"], "third")

        def size(**more):
            return len(self.server.post("/apply-template", dict({"messages": ASK, "tools": tools}, **more))["prompt"])
        self.assertEqual(size(tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": tools}}), size())
        for path, body in (("/v1/chat/completions", {"messages": ASK, "tools": tools}),
                           ("/v1/responses", {"input": "x", "tools": flat})):
            for wrong in ({"type": "allowed_tools"}, {"type": "web_search"}, {"type": "custom", "name": "x"}, {}, 5,
                          {"type": "allowed_tools", "mode": "some", "tools": tools}):
                error = self.server.post(path, dict(body, tool_choice=wrong), 400)["error"]
                self.assertEqual(error["param"], "tool_choice", (path, wrong))

    def test_many_tools(self):
        """1024 functions, and as many names of a tool_choice, are taken; one more is not."""
        def names(n):
            return [{"type": "function", "name": "f%d" % i} for i in range(n)]

        def ask(tools, allowed, status):
            choice = {"type": "allowed_tools", "mode": "auto", "tools": names(allowed)}
            return self.server.post("/apply-template", {"messages": ASK, "tool_choice": choice, "tools": [
                {"type": "function", "function": t} for t in names(tools)]}, status)
        self.assertIn("prompt", ask(1024, 1024, 200))
        self.assertEqual(ask(1025, 1, 400)["error"]["param"], "tools")
        self.assertEqual(ask(1, 1025, 400)["error"]["param"], "tool_choice")

    def test_wrong_types(self):
        tool = {"name": "f", "strict": "yes", "input_schema": {"type": "object"}}
        message = {"messages": ASK, "max_tokens": 1}
        for path, body, param in (
                ("/v1/messages", dict(message, tool_choice={"type": "auto", "disable_parallel_tool_use": "yes"}), "tool_choice"),
                ("/v1/messages", dict(message, output_config={"effort": "nonsense"}), "output_config"),
                ("/v1/messages", dict(message, output_config={"effort": 1}), "output_config"),
                ("/v1/messages", dict(message, tools=[tool]), "tools"),
                ("/v1/chat/completions", {"messages": ASK, "tools": [{"type": "function", "function": tool}]}, "tools"),
                ("/v1/responses", {"input": "x", "tools": [dict(tool, type="function")]}, "tools"),
                ("/v1/chat/completions", {"messages": ASK, "stream_options": {"include_usage": 1}}, "stream_options"),
                ("/v1/chat/completions", {"messages": ASK, "response_format": {"type": "json_schema", "json_schema": {
                    "schema": SCHEMA, "strict": "yes"}}}, "response_format"),
                ("/v1/responses", {"input": "x", "text": {"format": {"type": "json_schema", "schema": SCHEMA, "strict": 1}}}, "text"),
                ("/v1/responses", {"input": "x", "metadata": 5}, "metadata"),
                ("/v1/responses", {"input": "x", "user": {}}, "user"),
                ("/v1/responses", {"input": "x", "instructions": [1]}, "instructions"),
                ("/v1/responses", {"input": "x", "reasoning": "high"}, "reasoning"),
                ("/v1/responses", {"input": "x", "reasoning": {"effort": 3}}, "reasoning")):
            error = self.server.post(path, body, 400)["error"]
            if path != "/v1/messages":  # whose errors name no member but in words
                self.assertEqual(error["param"], param, body)
            self.assertTrue(error["message"].startswith(param), error)

    def calls(self, server, body):
        """Names of the calls, at once and streamed."""
        reply = server.post("/v1/chat/completions", body)["choices"][0]
        streamed, finish = [], None
        for _, chunk in server.events("/v1/chat/completions", body)[:-1]:
            choice = chunk["choices"][0]
            finish = choice["finish_reason"] or finish
            streamed += [c for c in choice["delta"].get("tool_calls", []) if "id" in c]
        self.assertEqual((len(streamed), finish), (len(reply["message"]["tool_calls"]), reply["finish_reason"]))
        for call in reply["message"]["tool_calls"]:
            json.loads(call["function"]["arguments"])
        return len(streamed), finish, reply["message"]["content"]

    def test_one_call(self):
        """parallel_tool_calls: false: the answer ends with its first call."""
        call = '{"name": "f", "arguments": {"a": 1}}'
        notations = {"<tool_call>": "Go:" + 2 * ("<tool_call>\n%s\n</tool_call>" % call),
                     "<tool_call><function=": "Go:" + 2 * "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n"
                                                         "</function>\n</tool_call>",
                     "[TOOL_CALLS]": "Go:[TOOL_CALLS][%s, %s]" % (call, call),
                     "[TOOL_CALLS] [ARGS]": "Go:" + 2 * '[TOOL_CALLS]f[ARGS]{"a": 1}'}
        for sign, text in notations.items():
            with self.subTest(sign), Server("--temp", "0", "--chat-template", template(sign)) as server:
                body = {"messages": ASK, "tools": [function("f", {"type": "object"})], "grammar": grammar(text)}
                both = server.post("/v1/chat/completions", dict(body, parallel_tool_calls=True))["choices"][0]
                self.assertEqual((len(both["message"]["tool_calls"]), both["finish_reason"]), (2, "tool_calls"))
                self.assertEqual(self.calls(server, dict(body, parallel_tool_calls=False)), (1, "tool_calls", "Go:"))
        self.assertEqual(self.server.post("/v1/chat/completions", {"messages": ASK, "parallel_tool_calls": 1}, 400)
                         ["error"]["param"], "parallel_tool_calls")


if __name__ == "__main__":
    serving.main()
