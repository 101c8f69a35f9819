"""What /v1/responses keeps and makes in the background, and errors as the protocols' own clients look at them.

  test_stored.py [-v] [Stored|Background|Conversations|Broken]
"""
import concurrent.futures
import http.client
import json
import os
import shutil
import tempfile
import time

import serving
from serving import Case, Server
from test_tools import grammar, template

FIRST, SECOND = "What is a lamp?", "And a ship?"
LONG = [{"role": "user", "content": "sea " * 3000}]
ASK = [{"role": "user", "content": FIRST}]


class Stored(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--parallel", "2", "--temp", "0").wait_ready()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def ask(self, status=200, **more):
        return self.server.post("/v1/responses", dict({"max_output_tokens": 12}, **more), status)

    def get(self, path, status=200):
        return json.loads(self.server.get("/v1/responses/" + path, status))

    def delete(self, path, status=200):
        got, _, data = self.server.request("DELETE", "/v1/responses/" + path)
        self.assertEqual(got, status, data)
        return json.loads(data)

    def message(self, status=200, headers=None, **more):
        return self.server.post("/v1/messages", dict({"max_tokens": 8, "messages": ASK}, **more), status, headers)

    # ---- /v1/responses ----

    def test_go_on(self):
        """What goes on from an answer is what comes of the whole conversation sent at once, at each of three turns."""
        items, id = [], None
        for i, text in enumerate((FIRST, SECOND, "And a bird?")):
            items.append({"role": "user", "content": text})
            # instructions are each request's own
            said = {"instructions": "Be brief." if i == 0 else "Speak of %d." % i}
            whole = self.ask(input=items, store=False, **said)
            short = self.ask(input=text if i else items, previous_response_id=id, **said)
            self.assertEqual((short["previous_response_id"], short["store"], whole["store"]), (id, True, False))
            self.assertEqual(short["output"][0]["content"], whole["output"][0]["content"])
            self.assertEqual(short["usage"]["input_tokens"], whole["usage"]["input_tokens"])
            count = self.server.post("/v1/responses/input_tokens", dict(said, input=text, previous_response_id=id))
            self.assertEqual(count, {"object": "response.input_tokens", "input_tokens": whole["usage"]["input_tokens"]})
            items += whole["output"]
            id = short["id"]
        self.assertEqual(len(self.get(id + "/input_items")["data"]), 5)

    def test_item_reference(self):
        """Items are named instead of sent: of outputs, of inputs, with ids of the client's own, and named again."""
        first = self.ask(input=[{"role": "user", "content": FIRST}, {"type": "custom", "in": {"id": "deep"}}])
        asked = self.get(first["id"] + "/input_items?order=asc")["data"][0]
        said, more = first["output"][0], {"role": "user", "content": SECOND, "id": "my \"own\""}
        whole = self.ask(input=ASK + [said, more])
        names = [{"type": "item_reference", "id": asked["id"]}, {"id": said["id"]}]
        short = self.ask(input=names + [more])
        self.assertEqual(short["output"][0]["content"], whole["output"][0]["content"])
        self.assertEqual(short["usage"]["input_tokens"], whole["usage"]["input_tokens"])
        kept = self.get(short["id"] + "/input_items?order=asc")["data"]
        self.assertEqual(kept[:2], [asked, said])
        self.delete(first["id"]) # what named them has them
        names.append({"type": "item_reference", "id": more["id"]})
        for again in (self.ask(input=names), self.ask(input=names[1:], previous_response_id=self.ask(input=FIRST)["id"])):
            self.assertEqual(len(self.get(again["id"] + "/input_items")["data"]), 3 if again["previous_response_id"] is None else 4)
        count = self.server.post("/v1/responses/input_tokens", {"input": names})["input_tokens"]
        self.assertEqual(count, whole["usage"]["input_tokens"])
        for unknown in ("msg_1", "deep", "x" * 5000, first["id"]):
            error = self.ask(404, input=[{"type": "item_reference", "id": unknown}])["error"]
            self.assertEqual((error["type"], error["param"], error["code"]), ("invalid_request_error", "input", None))
            self.assertIn("Item with id '%s' not found" % unknown[:64], error["message"])
        lost = self.ask(input=FIRST, store=False)["output"][0]["id"]
        self.ask(404, input=[{"type": "item_reference", "id": lost}])

    def test_item_reference_bounds(self):
        self.assertIn("128", self.ask(400, input=[{"id": self.ask(input=FIRST)["output"][0]["id"]}] * 129)["error"]["message"])
        big = {"id": "big", "type": "custom_tool_call", "input": "x" * (5 << 20)}
        self.ask(input=ASK + [big])
        self.ask(input=ASK + [{"id": "big"}], max_output_tokens=1)
        self.assertIn("too long together", self.ask(400, input=ASK + [{"id": "big"}] * 2)["error"]["message"])

    def test_call_and_back(self):
        """A call's result alone goes on from the call."""
        tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
        call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
        with Server("--temp", "0", "--chat-template", template("<tool_call>")) as server:
            ask = {"input": FIRST, "tools": [tool], "grammar": grammar(call)}
            for first in (server.post("/v1/responses", ask), server.events("/v1/responses", ask)[-1][1]["response"]):
                item = first["output"][-1]
                self.assertEqual((item["type"], item["status"]), ("function_call", "completed"))
                result = {"type": "function_call_output", "call_id": item["call_id"], "output": "A light."}
                more = {"tools": [tool], "max_output_tokens": 4}
                whole = server.post("/v1/responses", dict(more, input=[{"role": "user", "content": FIRST}, item, result]))
                short = server.post("/v1/responses", dict(more, input=[result], previous_response_id=first["id"]))
                self.assertEqual(short["usage"]["input_tokens"], whole["usage"]["input_tokens"])
                kept = json.loads(server.get("/v1/responses/%s/input_items?order=asc" % short["id"]))["data"]
                self.assertEqual([i["type"] for i in kept], ["message", "function_call", "function_call_output"])
                self.assertEqual((kept[1], kept[2]["output"]), (item, "A light."))

    def test_get_and_delete(self):
        for made in (self.ask(input=FIRST), self.server.events("/v1/responses", {"input": FIRST, "max_output_tokens": 3})[-1][1]
                     ["response"], self.ask(input=FIRST, max_output_tokens=100)):
            self.assertEqual(self.get(made["id"]), made)
            self.assertEqual(made["status"] == "completed", "completed_at" in made)
            self.get(made["id"] + "?stream=true", 400)
            self.assertIn("synchronous", self.server.post("/v1/responses/%s/cancel" % made["id"], "", 400)["error"]["message"])
            self.assertEqual(self.delete(made["id"]), {"id": made["id"], "object": "response", "deleted": True})
            self.assertEqual(self.delete(made["id"], 404)["error"]["type"], "invalid_request_error")
            self.get(made["id"], 404)
            self.get(made["id"] + "/input_items", 404)
            self.server.post("/v1/responses/%s/cancel" % made["id"], "", 404)
            error = self.ask(400, input="x", previous_response_id=made["id"])["error"]
            self.assertEqual((error["code"], error["param"]), ("previous_response_not_found", "previous_response_id"))
        self.get(self.ask(input=FIRST, store=False)["id"], 404)
        for path, status in (("resp_1/what", 404), ("x" * 3000, 404), ("resp_1%00", 400), ("resp_1/cancel", 405)):
            self.get(path, status)
        self.assertEqual(self.server.request("PUT", "/v1/responses/resp_1")[0], 405)
        self.assertEqual(self.server.request("GET", "/v1/responses")[0], 405)

    def test_input_items(self):
        items = [{"role": "user", "content": "a%d" % i} for i in range(25)]
        items[3] = {"role": "assistant", "content": "said"}
        id = self.ask(input=items, max_output_tokens=1)["id"]
        page = self.get(id + "/input_items")
        self.assertEqual((len(page["data"]), page["has_more"]), (20, True))
        self.assertEqual([i["content"][0]["text"] for i in page["data"][:2]], ["a24", "a23"])
        self.assertEqual((page["first_id"], page["last_id"]), (page["data"][0]["id"], page["data"][-1]["id"]))
        rest = self.get("%s/input_items?after=%s" % (id, page["last_id"]))
        self.assertEqual((len(rest["data"]), rest["has_more"], rest["data"][1]["content"][0]),
                         (5, False, {"type": "output_text", "text": "said", "annotations": []}))
        first = self.get(id + "/input_items?limit=2&order=asc")["data"]
        self.assertEqual([i["content"] for i in first], [[{"type": "input_text", "text": t}] for t in ("a0", "a1")])
        self.assertEqual(len({i["id"] for i in page["data"] + rest["data"]}), 25)
        for wrong in ("limit=0", "limit=101", "limit=x", "order=up"):
            self.assertEqual(self.get("%s/input_items?%s" % (id, wrong), 400)["error"]["param"], wrong.split("=")[0])

    def test_bytes(self):
        """32 MiB are kept at most, the newest; items that this server doesn't know are kept, too."""
        def big(n):
            return [{"role": "user", "content": "x"}, {"type": "custom_tool_call", "input": "x" * (n << 20)}]
        ids = [self.ask(input=big(7), max_output_tokens=1)["id"] for _ in range(6)]
        for i, id in enumerate(ids):
            self.get(id, 200 if i >= 2 else 404)
        grown = self.ask(input=big(7), previous_response_id=ids[-1], max_output_tokens=1)["id"]
        kinds, page = [], {"has_more": True, "last_id": ""}
        while page["has_more"]: # a page ends where it is long enough
            page = self.get("%s/input_items?order=asc&after=%s" % (grown, page["last_id"]))
            self.assertLessEqual(sum(len(json.dumps(i)) > 1 << 20 for i in page["data"]), 1)
            kinds += [i["type"] for i in page["data"]]
        self.assertEqual(kinds, ["message", "custom_tool_call", "message"] + ["message", "custom_tool_call"])
        self.get(ids[-2], 200)
        self.get(ids[-3], 404)

    def test_refused(self):
        for more, param in (({"background": "yes"}, "background"), ({"store": "yes"}, "store"), ({"input": []}, "input"),
                            ({"previous_response_id": 5}, "previous_response_id"), ({"conversation": 5}, "conversation"),
                            ({"previous_response_id": "r" * 100}, "previous_response_id"), ({"metadata": {"a": 1}}, "metadata"),
                            ({"metadata": {"a": "b" * 513}}, "metadata"), ({"metadata": {"a" * 65: "b"}}, "metadata"),
                            ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
                            ({"input": [{"type": "item_reference"}]}, "input"),
                            ({"text": {"format": "json_object"}}, "text"), ({"text": {"format": {"name": "a"}}}, "text")):
            self.assertEqual(self.ask(400, **dict({"input": "x"}, **more))["error"]["param"], param)
        most = {"%02d" % i + "k" * 62: "ü" * 512 for i in range(16)}
        self.assertEqual(self.ask(input="x", metadata=most)["metadata"], most)

    def test_left(self):
        """The answer of a client that left isn't kept, and nothing is held up by it."""
        c = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=serving.TIMEOUT_S)
        c.request("POST", "/v1/responses", json.dumps({"input": FIRST, "stream": True, "ignore_eos": True}))
        line = b""
        with c.getresponse() as r:
            while not line.startswith(b"data: "):
                line = r.readline()
        c.close()
        id = json.loads(line[6:])["response"]["id"]
        self.server.until(lambda: self.server.metric("num_requests_running") == 0)
        if self.server.metric("request_aborted_total"): # it was too late to leave otherwise
            self.get(id, 404)
        self.ask(input=FIRST)

    # ---- errors ----

    def test_codes(self):
        """OpenAI's codes are words, and a context that is too small is said in words that clients look for."""
        for path, body in (("chat/completions", {"messages": LONG}), ("responses", {"input": LONG}),
                           ("completions", {"prompt": LONG[0]["content"]})):
            error = self.server.post("/v1/" + path, body, 400)["error"]
            self.assertEqual((error["code"], error["type"]), ("context_length_exceeded", "exceed_context_size_error"))
            self.assertTrue(error["message"].startswith("This model's maximum context length is 1024 tokens"), error)
        calls = [{"role": "assistant", "content": "", "tool_calls": {"id": "x"}}]
        error = self.server.post("/v1/chat/completions", {"messages": ASK + calls}, 400)["error"]
        self.assertEqual(error["param"], "messages")
        error = self.server.post("/v1/chat/completions", {"messages": ASK, "n": 0}, 400)["error"]
        self.assertEqual((error["code"], error["param"]), ("invalid_value", "n"))
        self.assertEqual(json.loads(self.server.get("/v1/models/x", 404))["error"]["code"], "model_not_found")
        error = self.server.post("/v1/completions", {"prompt": "x", "stream_options": {"include_usage": 1}}, 400)["error"]
        self.assertEqual(error["param"], "stream_options")

    def test_anthropic_errors(self):
        error = self.message(400, messages=LONG)
        self.assertEqual((error["type"], error["error"]["type"]), ("error", "invalid_request_error"))
        self.assertRegex(error["error"]["message"], r"^prompt is too long: \d+ tokens > 1023 maximum")
        version = {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}
        got, headers, data = self.server.request("GET", "/v1/models/x", headers=version)
        self.assertEqual((got, json.loads(data)["error"]["type"]), (404, "not_found_error"))
        self.assertEqual(headers["request-id"], json.loads(data)["request_id"])
        # what is too long for an answer can still be counted
        count = self.server.post("/v1/messages/count_tokens", {"messages": LONG})["input_tokens"]
        self.assertGreater(count, 3000)
        for more in ({"thinking": {"type": "perhaps"}}, {"thinking": {"type": "enabled", "budget_tokens": "many"}},
                     {"thinking": {"type": "adaptive", "display": "loud"}},
                     {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
                     {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "is_error": 1}]}]}):
            self.assertEqual(self.message(400, **more)["error"]["type"], "invalid_request_error")
        self.assertIn("'image'", self.message(400, messages=[{"role": "user", "content": [{"type": "image"}]}])["error"]["message"])

    # ---- /v1/messages ----

    def test_failed_tool(self):
        """The model is told that a tool failed."""
        def count(text, **more):
            result = dict({"type": "tool_result", "tool_use_id": "t", "content": text}, **more)
            return self.server.post("/v1/messages/count_tokens", {"messages": ASK + [
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
                {"role": "user", "content": [result]}]})["input_tokens"]
        self.assertEqual(count("none", is_error=True), count("Error: none"))
        self.assertEqual(count("none", is_error=False), count("none"))
        self.assertNotEqual(count("none", is_error=True), count("none"))

    def test_full_context(self):
        """An answer that the context ends is told from one that max_tokens ends."""
        with Server("-c", "64", "--temp", "0") as server:
            ask = {"messages": ASK, "max_tokens": 500, "grammar": 'root ::= "a"*'}
            self.assertEqual(server.post("/v1/messages", ask)["stop_reason"], "model_context_window_exceeded")
            self.assertEqual(server.events("/v1/messages", ask)[-2][1]["delta"]["stop_reason"],
                             "model_context_window_exceeded")
            self.assertEqual(server.post("/v1/messages", dict(ask, max_tokens=5))["stop_reason"], "max_tokens")

    def test_hidden_thinking(self):
        """display: omitted: that there was thinking is told, what it was isn't."""
        with Server("--temp", "0", "--chat-template", template("<tool_call> <think></think>")) as server:
            ask = {"messages": ASK, "max_tokens": 64, "grammar": grammar("<think>Hm, so.</think>Done."),
                   "tools": [{"name": "f", "input_schema": {"type": "object"}}]}
            for how, text in (("omitted", ""), ("summarized", "Hm, so.")):
                body = dict(ask, thinking={"type": "adaptive", "display": how})
                blocks = server.post("/v1/messages", body)["content"]
                self.assertEqual([(b["type"], b.get("thinking", b.get("text"))) for b in blocks],
                                 [("thinking", text), ("text", "Done.")])
                events = [data for _, data in server.events("/v1/messages", body)]
                kinds = [e["content_block"]["type"] for e in events if e["type"] == "content_block_start"]
                self.assertEqual(kinds, ["thinking", "text"])
                said = "".join(e["delta"].get("thinking", "") for e in events if e["type"] == "content_block_delta")
                self.assertEqual(said, text)
                self.assertIn("signature_delta", [e["delta"]["type"] for e in events if e["type"] == "content_block_delta"])
            usage = events[-2]["usage"]
            self.assertGreater(usage["output_tokens_details"]["thinking_tokens"], 0)
            self.assertLess(usage["output_tokens_details"]["thinking_tokens"], usage["output_tokens"])



class Background(Case):
    """Answers that nobody waits for: asked for with their id, cancelled, dropped, and ended with the server."""
    ENDLESS = {"input": FIRST, "background": True, "grammar": 'root ::= "a"*', "max_output_tokens": 100000}

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--parallel", "1", "--queue", "3", "--temp", "0", "-c", "4096").wait_ready()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def ask(self, status=200, **more):
        return self.server.post("/v1/responses", more, status)

    def get(self, id, status=200):
        return json.loads(self.server.get("/v1/responses/" + id, status))

    def status(self, id):
        return self.get(id)["status"]

    def cancel(self, id, status=200):
        return self.server.post("/v1/responses/%s/cancel" % id, "", status)

    def over(self, id):
        self.server.until(lambda: self.status(id) not in ("queued", "in_progress"))
        return self.get(id)

    def rest(self):
        """Nobody is answered, and no room for requests is taken."""
        self.server.until(lambda: self.server.metric("num_requests_running") + self.server.metric("num_requests_waiting") == 0)
        self.server.until(lambda: self.server.metric("http_body_bytes") == 0)

    def test_made(self):
        """It becomes what would have been answered at once, and is gone on from like that."""
        said = {"input": FIRST, "metadata": {"a": "b"}, "include": ["message.output_text.logprobs"], "top_logprobs": 2}
        now = self.ask(**said)
        first = self.ask(background=True, **said)
        self.assertEqual((first["status"], first["background"], first["output"], first["usage"], first["metadata"]),
                         ("queued", True, [], None, {"a": "b"}))
        got = self.over(first["id"])
        self.assertEqual((got["status"], got["background"], got["id"], got["created_at"]),
                         ("completed", True, first["id"], first["created_at"]))
        self.assertEqual(got["output"][0]["content"], now["output"][0]["content"])
        self.assertEqual(got["usage"]["output_tokens"], now["usage"]["output_tokens"])
        self.assertGreaterEqual(got["completed_at"], got["created_at"])
        self.assertEqual(self.cancel(first["id"]), got) # it is over, and stays so
        self.get(first["id"] + "?stream=true", 400)
        self.assertEqual(len(self.get(first["id"] + "/input_items")["data"]), 1)
        next, after = (self.ask(input=SECOND, previous_response_id=id, max_output_tokens=4) for id in (got["id"], now["id"]))
        self.assertEqual(next["output"][0]["content"], after["output"][0]["content"])
        short = self.over(self.ask(input=FIRST, background=True, max_output_tokens=2)["id"])
        self.assertEqual((short["status"], short["incomplete_details"]), ("incomplete", {"reason": "max_output_tokens"}))
        self.assertEqual(self.server.request("DELETE", "/v1/responses/" + got["id"])[0], 200)
        self.get(got["id"], 404)
        self.rest()

    def test_calls(self):
        tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
        got = self.over(self.ask(input=FIRST, background=True, tools=[tool], tool_choice="required")["id"])
        self.assertEqual([(i["type"], i["name"], i["arguments"]) for i in got["output"]], [("function_call", "f", "{}")])

    def test_cancel(self):
        """One that runs and one that waits; nothing is made of either any more, and its input can still be named."""
        running, waiting = self.ask(**self.ENDLESS), self.ask(**self.ENDLESS)
        self.server.until(lambda: self.status(running["id"]) == "in_progress")
        self.assertEqual(self.status(waiting["id"]), "queued")
        for id in (running["id"], waiting["id"]):
            error = self.ask(400, input="x", previous_response_id=id)["error"]
            self.assertEqual(error["param"], "previous_response_id")
            self.assertIn("still being made", error["message"])
        item = self.get(running["id"] + "/input_items")["data"][0]["id"]
        for made in (waiting, running):
            cancelled = self.cancel(made["id"])
            self.assertEqual(cancelled, dict(made, status="cancelled"))
            self.assertEqual((self.cancel(made["id"]), self.get(made["id"])), (cancelled, cancelled))
        self.rest()
        self.assertEqual(self.get(running["id"]), cancelled)
        whole, named = self.ask(input=FIRST), self.ask(input=[{"type": "item_reference", "id": item}])
        self.assertEqual(whole["output"][0]["content"], named["output"][0]["content"])
        self.assertIn("synchronous", self.cancel(whole["id"], 400)["error"]["message"])
        self.cancel("resp_none", 404)

    def test_drop(self):
        """What is dropped while it is made is made no further."""
        id = self.ask(**self.ENDLESS)["id"]
        self.server.until(lambda: self.status(id) == "in_progress")
        self.assertEqual(self.server.request("DELETE", "/v1/responses/" + id)[0], 200)
        self.get(id, 404)
        self.rest()
        self.get(id, 404)

    def test_full(self):
        """Those that wait are requests like others; who asks after them, or cancels, is heard nevertheless."""
        ids = [self.ask(**self.ENDLESS)["id"] for _ in range(4)]
        status, headers, _ = self.server.request("POST", "/v1/responses", self.ENDLESS)
        self.assertEqual((status, headers["retry-after"]), (429, "1"))
        status, headers, data = self.server.request("POST", "/v1/messages", {
            "max_tokens": 4, "messages": [{"role": "user", "content": FIRST}]})
        self.assertEqual((status, headers["retry-after"], json.loads(data)["error"]["type"]), (429, "1", "rate_limit_error"))
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            self.assertEqual(set(pool.map(self.status, ids * 4)), {"queued", "in_progress"})
        for id in ids:
            self.cancel(id)
        self.rest()
        self.assertEqual(self.over(self.ask(input=FIRST, background=True)["id"])["status"], "completed")

    def test_refused(self):
        for more, words in (({"store": False}, "has to be stored"), ({"stream": True}, "aren't streamed")):
            error = self.ask(400, input=FIRST, background=True, **more)["error"]
            self.assertEqual(error["param"], "background")
            self.assertIn(words, error["message"])
        # an answer alone has half of what there is, with all that was said before it
        big = [{"role": "user", "content": "x"}, {"type": "custom_tool_call", "input": "x" * (7 << 20)}]
        id = None
        for _ in range(2):
            id = self.ask(input=big, previous_response_id=id, max_output_tokens=1)["id"]
        error = self.ask(400, input=big, previous_response_id=id, background=True)["error"]
        self.assertEqual(error["param"], "background")
        self.assertIn("too long", error["message"])
        self.assertEqual(self.over(self.ask(input=big, background=True, max_output_tokens=1)["id"])["status"], "incomplete")
        self.rest()

    def test_end(self):
        """The server's end waits for none of them."""
        server = Server("--parallel", "1", "--temp", "0", "--drain-timeout", "600").wait_ready()
        for _ in range(3):
            server.post("/v1/responses", self.ENDLESS)
        began = time.monotonic()
        server.stop()
        self.assertLess(time.monotonic() - began, serving.TIMEOUT_S / 2)


class Conversations(Case):
    """What is said in turns, kept under one id: made, gone on with, changed and dropped."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--parallel", "2", "--temp", "0").wait_ready()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def call(self, method, path, body=None, status=200):
        got, _, data = self.server.request(method, "/v1/conversations" + path, body)
        self.assertEqual(got, status, data)
        return json.loads(data)

    def ask(self, status=200, **more):
        return self.server.post("/v1/responses", dict({"max_output_tokens": 8}, **more), status)

    def items(self, id):
        return self.call("GET", "/%s/items?order=asc&limit=100" % id)["data"]

    def test_turns(self):
        """Answered as the whole is when it is sent at once: at once, as a stream, in the background, stored or not."""
        made = self.call("POST", "", {"items": [{"role": "user", "content": FIRST}], "metadata": {"a": "b"}})
        self.assertEqual((made["object"], made["metadata"], self.call("GET", "/" + made["id"])), ("conversation", {"a": "b"}, made))
        whole, id = list(ASK), made["id"]
        for i, how in enumerate(({}, {"store": False}, {"stream": True}, {"background": True})):
            asked = [{"role": "user", "content": "%s %d" % (SECOND, i)}] if i else []
            whole += asked
            once = self.ask(input=whole, store=False)
            body = {"input": asked, "conversation": id if i % 2 else {"id": id}, "max_output_tokens": 8}
            count = self.server.post("/v1/responses/input_tokens", body)["input_tokens"]
            if "stream" in how:
                got = self.server.events("/v1/responses", body)[-1][1]["response"]
            else:
                got = self.ask(**dict(body, **how))
            if "background" in how:
                self.assertEqual(len(self.items(id)), len(whole) - 1)
                path = "/v1/responses/" + got["id"]
                self.server.until(lambda: json.loads(self.server.get(path))["status"] not in ("queued", "in_progress"))
                got = json.loads(self.server.get(path))
            self.assertEqual(got["conversation"], {"id": id})
            self.assertIsNone(once["conversation"])
            self.assertEqual(got["output"][0]["content"], once["output"][0]["content"])
            self.assertEqual((got["usage"]["input_tokens"], count), (once["usage"]["input_tokens"],) * 2)
            whole += once["output"]
            items = self.items(id)
            self.assertEqual([x["role"] for x in items], [x["role"] for x in whole])
            self.assertEqual(items[-1], got["output"][0])
        self.assertEqual(len({x["id"] for x in items}), 8)

    def test_items(self):
        id = self.call("POST", "", {})["id"]
        self.assertEqual(self.call("GET", "/%s/items" % id), {"object": "list", "data": [], "has_more": False, "first_id": "",
                                                              "last_id": ""})
        added = self.call("POST", "/%s/items" % id, {"items": [{"role": "user", "content": "a%d" % i} for i in range(20)]})
        self.assertEqual((len(added["data"]), added["has_more"]), (20, False))
        self.call("POST", "/%s/items" % id, {"items": [{"id": "my/own", "role": "assistant", "content": "x"},
                                                      {"id": "own", "type": "custom", "in": {"id": "deep"}}]})
        page = self.call("GET", "/%s/items" % id)
        self.assertEqual((len(page["data"]), page["has_more"], page["data"][0]["id"]), (20, True, "own"))
        rest = self.call("GET", "/%s/items?after=%s" % (id, page["last_id"]))
        self.assertEqual([i["content"][0]["text"] for i in rest["data"]], ["a1", "a0"])
        item = added["data"][3]
        self.assertEqual(self.call("GET", "/%s/items/%s" % (id, item["id"])), item)
        self.assertEqual(self.call("DELETE", "/%s/items/%s" % (id, item["id"]))["object"], "conversation")
        for unknown in (item["id"], "deep", "x" * 3000):
            self.call("GET", "/%s/items/%s" % (id, unknown), status=404)
            self.call("DELETE", "/%s/items/%s" % (id, unknown), status=404)
        self.assertEqual(len(self.items(id)), 21)

    def test_change_and_drop(self):
        id = self.call("POST", "", {"metadata": {"a": "b"}})["id"]
        self.assertEqual(self.call("POST", "/" + id, {"metadata": {"c": "d"}})["metadata"], {"c": "d"})
        self.assertEqual(self.call("GET", "/" + id)["metadata"], {"c": "d"})
        # an answer that is cancelled adds nothing, and one whose conversation is gone is an answer
        endless = {"input": FIRST, "conversation": id, "grammar": 'root ::= [a-z ]{2000}'}
        made = self.ask(background=True, **dict(endless, max_output_tokens=900))
        self.server.post("/v1/responses/%s/cancel" % made["id"], "")
        self.server.until(lambda: self.server.metric("num_requests_running") == 0)
        self.assertEqual(self.items(id), [])
        made = self.ask(background=True, **endless)
        self.assertEqual(self.call("DELETE", "/" + id), {"id": id, "object": "conversation.deleted", "deleted": True})
        path = "/v1/responses/" + made["id"]
        self.server.until(lambda: json.loads(self.server.get(path))["status"] == "incomplete")
        for method, below, body in (("GET", "", None), ("POST", "", {"metadata": {}}), ("DELETE", "", None), ("GET", "/items", None),
                                    ("POST", "/items", {"items": ASK}), ("GET", "/items/x", None), ("DELETE", "/items/x", None)):
            error = self.call(method, "/" + id + below, body, 404)["error"]
            self.assertIn("Conversation with id '%s' not found" % id, error["message"])
        self.assertEqual(self.ask(404, input=FIRST, conversation=id)["error"]["param"], "conversation")

    def test_refused(self):
        id = self.call("POST", "", {})["id"]
        for body, param in (({"items": 5}, "items"), ({"items": ASK * 21}, "items"), ({"items": [{"role": "x"}]}, "input"),
                            ({"metadata": {"a": 1}}, "metadata")):
            for path in ("", "/" + id) if param == "metadata" else ("", "/%s/items" % id):
                self.assertEqual(self.call("POST", path, body, 400)["error"]["param"], param)
        self.call("POST", "/%s/items" % id, "[]", 400)
        for method, path, status in (("GET", "", 405), ("PUT", "/" + id, 405), ("PUT", "/%s/items" % id, 405), ("GET", "/a/b", 404),
                                     ("POST", "/%s/items/x" % id, 405), ("GET", "/%s/items/" % id, 404),
                                     ("GET", "/%s/items/x/y" % id, 404)):
            self.call(method, path, status=status)
        for more in ({"conversation": {}}, {"conversation": id, "previous_response_id": "resp_1"}):
            self.assertEqual(self.ask(400, input=FIRST, **more)["error"]["param"], "conversation")
        self.assertEqual(self.ask(404, input=FIRST, conversation="c" * 100)["error"]["param"], "conversation")


class Broken(Case):
    """The model's file is cut short while it is read: each protocol says so in the middle of its answer."""

    def test_read_fails(self):
        folder = tempfile.mkdtemp()
        try:
            model = os.path.join(folder, "cut")
            shutil.copytree(serving.MODEL, model)
            args = serving.tight_budget("--parallel", "4", "--temp", "1")
            with Server(*args, model=model) as server:
                self.read_fails(server, os.path.join(model, "model.safetensors"))
        finally:
            shutil.rmtree(folder)

    def read_fails(self, server, path):
        free = {"stream": True, "grammar": 'root ::= [a-z ]{2000}'}
        asked = {"/v1/responses": dict(free, input=FIRST), "/v1/chat/completions": dict(free, messages=ASK),
                 "/v1/messages": dict(free, messages=ASK, max_tokens=100000)}
        made = server.post("/v1/responses", {"input": FIRST, "background": True, "grammar": free["grammar"]})
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            answers = {at: pool.submit(server.request, "POST", at, body) for at, body in asked.items()}
            server.until(lambda: server.metric("num_requests_running") == 4 and server.metric("generation_tokens_total") > 40)
            os.truncate(path, 1 << 20)
            answers = {at: answer.result() for at, answer in answers.items()}
        blocks = {}
        for at, (status, headers, data) in answers.items():
            self.assertEqual((status, headers["content-type"]), (200, "text/event-stream"))
            lines = data.decode().strip().split("\n")
            self.assertTrue(lines[-1].startswith("data: "), lines[-1])
            self.assertIn("model.safetensors", lines[-1])
            blocks[at] = (lines[-2], json.loads(lines[-1][6:]) if lines[-1] != "data: [DONE]" else None)
        name, event = blocks["/v1/responses"]
        response = event["response"]
        self.assertEqual((name, event["type"], response["status"], response["error"]["code"]),
                         ("event: response.failed", "response.failed", "failed", "server_error"))
        self.assertEqual(json.loads(server.get("/v1/responses/" + response["id"])), response)
        name, event = blocks["/v1/messages"]
        self.assertEqual((name, event["type"], event["error"]["type"]), ("event: error", "error", "api_error"))
        self.assertEqual(blocks["/v1/chat/completions"][1]["error"]["type"], "server_error")
        failed = json.loads(server.get("/v1/responses/" + made["id"]))
        self.assertEqual((failed["status"], failed["error"]["code"], failed["output"]), ("failed", "server_error", []))
        self.assertIn("model.safetensors", failed["error"]["message"])
        # before a stream began it is a status
        self.assertEqual(server.post("/v1/messages", {"messages": ASK, "max_tokens": 4}, 500)["error"]["type"],
                         "api_error")
        self.assertEqual(server.metric("num_requests_running"), 0)


if __name__ == "__main__":
    serving.main()
