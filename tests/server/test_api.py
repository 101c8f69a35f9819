"""The protocols: every endpoint, streaming and not, against the model that ships.

  test_api.py [-v] [OpenAI | Others | Company]

What a greedy answer is, `moeflux run` says; what is JSON, jsonschema where it is there.
"""
import json
import os
import re
import resource
import subprocess
import tempfile
import threading
import time

import serving
from serving import BIN, MODEL, Case, Server

QUESTION = "What is a lighthouse?"
MESSAGES = [{"role": "user", "content": QUESTION}]
GREEDY = {"messages": MESSAGES, "temperature": 0}
TOOLS = [{"type": "function", "function": {
    "name": "look_up", "description": "Looks a word up.",
    "parameters": {"type": "object", "properties": {"word": {"enum": ["lamp", "sea"]}, "page": {"type": "integer"}},
                   "required": ["word", "page"], "additionalProperties": False}}},
    {"type": "function", "function": {"name": "stop_now"}}]
SCHEMA = {"type": "object", "properties": {"kind": {"enum": ["noun", "verb"]}, "ok": {"type": "boolean"}},
          "required": ["kind", "ok"], "additionalProperties": False}


def run(*args):
    out = subprocess.run([BIN, "run", "-m", MODEL, "--temp", "0", "--json", "--no-progress", *args],
                         check=True, capture_output=True)
    return json.loads(out.stdout)


class Api(Case):
    args = ("--parallel", "2")

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.args).wait_ready()
        cls.post = staticmethod(cls.server.post)
        cls.answer = run("-p", QUESTION)["text"]

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def chat(self, status=200, **more):
        return self.post("/v1/chat/completions", dict(GREEDY, **more), status)

    def chunks(self, **more):
        events = [data for _, data in self.server.events("/v1/chat/completions", dict(GREEDY, **more))]
        self.assertEqual(events[-1], "[DONE]")
        return events[:-1]

    def refused(self, path, body, param, status=400):
        error = self.post(path, body, status)["error"]
        self.assertEqual(error["param"], param, error)
        return error


class OpenAI(Api):
    def test_chat(self):
        reply = self.chat()
        self.assertEqual(reply["object"], "chat.completion")
        choice = reply["choices"][0]
        self.assertEqual(choice["message"], {"role": "assistant", "content": self.answer, "refusal": None})
        self.assertEqual((choice["finish_reason"], choice["logprobs"]), ("stop", None))
        usage = reply["usage"]
        self.assertEqual(usage["prompt_tokens"], 15)
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])
        timings = reply["timings"]
        self.assertEqual(timings["prompt_n"] + timings["cache_n"], 15)
        self.assertEqual(timings["predicted_n"], usage["completion_tokens"])
        self.assertGreater(timings["predicted_per_second"], 0)
        self.assertGreater(reply["experts"]["hits"] + reply["experts"]["misses"], 0)

    def test_chat_stream(self):
        chunks = self.chunks(stream_options={"include_usage": True})
        self.assertEqual(chunks[0]["choices"][0]["delta"], {"role": "assistant", "content": None})
        text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1])
        self.assertEqual(text, self.answer)
        self.assertEqual(chunks[-2]["choices"][0]["finish_reason"], "stop")
        self.assertEqual((chunks[-1]["choices"], chunks[-1]["usage"]["prompt_tokens"]), ([], 15))
        self.assertEqual({c["id"] for c in chunks}, {chunks[0]["id"]})
        self.assertNotIn("usage", self.chunks(max_tokens=1)[-1])

    def test_messages_forms(self):
        """Parts, roles and everything that clients send and this server doesn't know."""
        parts = [{"type": "text", "text": QUESTION[:5]}, {"type": "text", "text": QUESTION[5:]}]
        reply = self.chat(messages=[{"role": "user", "content": parts}], store=False, metadata={"a": 1}, user="me",
                          prompt_cache_key="x", tools=[{"type": "web_search"}], parallel_tool_calls=True)
        self.assertEqual(reply["choices"][0]["message"]["content"], self.answer)
        rendered = self.post("/apply-template", {"messages": [
            {"role": "developer", "content": "Be brief."}, {"role": "assistant", "content": "<|im_end|>"},
            {"role": "tool", "tool_call_id": "1", "content": "ok"}]})["prompt"]
        self.assertEqual(rendered, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n<|im_end|><|im_end|>\n"
                                   "<|im_start|>tool\nok<|im_end|>\n<|im_start|>assistant\n")
        # What a user wrote is no special token.
        hidden = self.post("/tokenize", {"messages": [{"role": "user", "content": "<|im_end|>"}]})
        plain = self.post("/tokenize", {"messages": [{"role": "user", "content": ""}]})
        self.assertGreater(hidden["count"], plain["count"] + 1)

    def test_logprobs(self):
        reply = self.chat(max_tokens=3, logprobs=True, top_logprobs=2)
        content = reply["choices"][0]["logprobs"]["content"]
        want = run("-p", QUESTION, "-n", "3", "--logprobs", "2")["logprobs"]
        self.assertEqual([x["token"] for x in content], [x["token"] for x in want])
        for got, ours in zip(content, want):
            self.assertAlmostEqual(got["logprob"], ours["logprob"], places=5)
            self.assertEqual([x["bytes"] for x in got["top_logprobs"]], [x["bytes"] for x in ours["top"]])
        streamed = [x for c in self.chunks(max_tokens=3, logprobs=True, top_logprobs=2)
                    for x in (c["choices"][0]["logprobs"] or {}).get("content", [])]
        self.assertEqual([x["token"] for x in streamed], [x["token"] for x in content])

    def test_stop_seed_n_bias(self):
        reply = self.chat(stop=" (noun)")
        self.assertEqual((reply["choices"][0]["message"]["content"], reply["choices"][0]["finish_reason"]),
                         (self.answer.split(" (noun)")[0], "stop"))
        self.assertEqual(reply["choices"][0]["stop_reason"], " (noun)")
        self.assertEqual(self.chunks(stop=["x y z", " (noun)"])[-1]["choices"][0]["stop_reason"], " (noun)")
        self.assertEqual(self.post("/v1/completions", {"prompt": "A lamp is", "stop": ["qqq"], "max_tokens": 2})["choices"][0]
                         ["stop_reason"], None)
        draw = {"temperature": 1.5, "seed": 7, "max_tokens": 12, "n": 3}
        first, again = self.chat(**draw), self.chat(**draw)
        texts = [c["message"]["content"] for c in first["choices"]]
        self.assertEqual(texts, [c["message"]["content"] for c in again["choices"]])
        self.assertEqual([c["index"] for c in first["choices"]], [0, 1, 2])
        self.assertGreater(len(set(texts)), 1)
        self.assertEqual(self.chat(**dict(draw, n=1))["choices"][0]["message"]["content"], texts[0])
        streamed = {}
        for chunk in self.chunks(**draw):
            one = chunk["choices"][0]
            streamed[one["index"]] = streamed.get(one["index"], "") + (one["delta"].get("content") or "")
        self.assertEqual([streamed[i] for i in range(3)], texts)
        first = self.chat(max_tokens=1, logprobs=True)["choices"][0]["logprobs"]["content"][0]["token"]
        token = self.post("/tokenize", {"content": first})["tokens"][0]
        self.assertNotEqual(self.chat(logit_bias={str(token): -100}, max_tokens=1, logprobs=True)
                            ["choices"][0]["logprobs"]["content"][0]["token"], first)

    def test_formats(self):
        for more in ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True,
                                                                                 "schema": SCHEMA}}},
                     {"response_format": {"type": "json_object"}, "max_tokens": 200},
                     {"grammar": 'root ::= "{" "\\"kind\\": \\"" [a-z]+ "\\", \\"ok\\": true}"', "max_tokens": 60}):
            reply = self.chat(**more)["choices"][0]
            if reply["finish_reason"] == "stop":
                self.assertIsInstance(json.loads(reply["message"]["content"]), dict)
        document = json.loads(self.chat(response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}})
                              ["choices"][0]["message"]["content"])
        self.assertIn(document["kind"], ("noun", "verb"))
        self.assertIsInstance(document["ok"], bool)

    def check_call(self, call):
        self.assertEqual((call["type"], call["function"]["name"]), ("function", "look_up"))
        arguments = json.loads(call["function"]["arguments"])
        self.assertIn(arguments["word"], ("lamp", "sea"))
        self.assertIsInstance(arguments["page"], int)
        self.assertTrue(call["id"].startswith("call_"))

    def test_tools(self):
        named = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "look_up"}}}
        reply = self.chat(**named)["choices"][0]
        self.assertEqual((reply["finish_reason"], reply["message"]["content"]), ("tool_calls", None))
        call = reply["message"]["tool_calls"][0]
        self.check_call(call)
        # and back: the model gets its call and the result
        messages = MESSAGES + [reply["message"], {"role": "tool", "tool_call_id": call["id"], "content": "A light."}]
        self.assertEqual(self.chat(messages=messages, max_tokens=3)["usage"]["completion_tokens"], 3)
        deltas = [c["choices"][0]["delta"] for c in self.chunks(**named)]
        calls = [d["tool_calls"][0] for d in deltas if "tool_calls" in d]
        calls[0]["function"]["arguments"] = "".join(c["function"]["arguments"] for c in calls)
        self.check_call(calls[0])
        any_call = self.chat(tools=TOOLS, tool_choice="required")["choices"][0]["message"]["tool_calls"][0]
        self.assertIn(any_call["function"]["name"], ("look_up", "stop_now"))
        self.assertNotIn("tool_calls", self.chat(tools=TOOLS, tool_choice="none")["choices"][0]["message"])

    def test_refused(self):
        path = "/v1/chat/completions"
        for more, param in [({"temperature": "hot"}, "temperature"), ({"temperature": -1}, "temperature"),
                            ({"top_p": 2}, "top_p"), ({"n": 0}, "n"), ({"n": 99}, "n"), ({"stop": [1]}, "stop"),
                            ({"max_tokens": "9"}, "max_tokens"), ({"max_tokens": 1.5}, "max_tokens"),
                            ({"stream": "yes"}, "stream"), ({"logit_bias": {"x": 1}}, "logit_bias"),
                            ({"logit_bias": {"99999999": 1}}, "logit_bias"), ({"logit_bias": {"5": 200}}, "logit_bias"),
                            ({"messages": []}, "messages"), ({"messages": [{"role": "x", "content": ""}]}, "messages"),
                            ({"messages": "hi"}, "messages"), ({"top_logprobs": 3}, "top_logprobs"),
                            ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
                            ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
                            ({"response_format": {"type": "xml"}}, "response_format"),
                            ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"if": {}}}}},
                             "response_format"),
                            ({"grammar": "root ::= nothing"}, "grammar"), ({"tool_choice": "perhaps"}, "tool_choice"),
                            ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
                             "tool_choice"),
                            ({"tools": [{"type": "function", "function": {}}]}, "tools"), ({"tools": {}}, "tools"),
                            ({"seed": "1"}, "seed"), ({"reasoning_effort": 3}, "reasoning_effort")]:
            with self.subTest(more):
                self.assertEqual(self.refused(path, dict(GREEDY, **more), param)["type"], "invalid_request_error")
        for body in ("", "{", "[]", "{\"a\": NaN}", "{\"a\":1}x", "\xff".encode("latin-1"), '{"a":1,"a":2}'):
            status, _, data = self.server.request("POST", path, body)
            self.assertEqual((status, json.loads(data)["error"]["type"]), (400, "invalid_request_error"))
        error = self.refused(path, dict(GREEDY, messages=[{"role": "user", "content": "sea " * 3000}]), None)
        self.assertEqual(error["type"], "exceed_context_size_error")

    def test_completions(self):
        whole = run("--raw", "-p", "A lighthouse is", "-n", "6")["text"]
        body = {"prompt": "A lighthouse is", "temperature": 0, "max_tokens": 6}
        reply = self.post("/v1/completions", body)
        self.assertEqual((reply["object"], reply["choices"][0]["text"]), ("text_completion", whole))
        self.assertEqual(reply["choices"][0]["finish_reason"], "length")
        ids = self.post("/tokenize", {"content": "A lighthouse is"})["tokens"]
        for prompt in (ids, [ids], ["A lighthouse is"]):
            self.assertEqual(self.post("/v1/completions", dict(body, prompt=prompt))["choices"][0]["text"], whole)
        both = self.post("/v1/completions", dict(body, prompt=["A lighthouse is", "A bird is"]))["choices"]
        self.assertEqual([c["index"] for c in both], [0, 1])
        self.assertEqual(both[0]["text"], whole)
        events = [e for _, e in self.server.events("/v1/completions", dict(body, stream_options={"include_usage": True}))]
        self.assertEqual("".join(e["choices"][0]["text"] for e in events[:-2]), whole)
        self.assertEqual(events[-2]["usage"]["completion_tokens"], 6)
        for more, param in (({"prompt": []}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": [1, "a"]}, "prompt"),
                            ({"prompt": [-1]}, "prompt"), ({"prompt": [8192]}, "prompt"), ({"suffix": "x"}, "suffix"),
                            ({"best_of": 4}, "best_of"), ({"logprobs": 21}, "logprobs"), ({"prompt": {}}, "prompt")):
            self.refused("/v1/completions", dict(body, **more), param)

    def test_echo(self):
        """As lm-eval asks: the prompt's own log-probabilities, which have to be those that were generated with."""
        ids = self.post("/tokenize", {"content": "A lighthouse is a kind"})["tokens"]
        reply = self.post("/v1/completions", {"prompt": [ids], "max_tokens": 1, "logprobs": 1, "echo": True,
                                              "temperature": 0, "seed": 1})["choices"][0]
        lp = reply["logprobs"]
        self.assertTrue(reply["text"].startswith("A lighthouse is a kind"))
        self.assertEqual((lp["token_logprobs"][0], lp["top_logprobs"][0]), (None, None))
        self.assertEqual({len(v) for v in lp.values()}, {len(ids) + 1})
        self.assertEqual("".join(lp["tokens"]), reply["text"])
        self.assertEqual(lp["text_offset"], [len("".join(lp["tokens"][:i])) for i in range(len(ids) + 1)])
        short = self.post("/v1/completions", {"prompt": [ids[:-1]], "max_tokens": 1, "logprobs": 20, "temperature": 0})
        self.assertAlmostEqual(short["choices"][0]["logprobs"]["top_logprobs"][0][lp["tokens"][-2]],
                               lp["token_logprobs"][-2], places=4)
        nothing = self.post("/v1/completions", {"prompt": ids, "max_tokens": 0, "echo": True})["choices"][0]
        self.assertEqual(nothing["text"], "A lighthouse is a kind")

    def test_models(self):
        models = json.loads(self.server.get("/v1/models"))
        self.assertEqual(models["data"][0]["id"], "pocket-dictionary")
        self.assertEqual(models["data"][0]["max_model_len"], 1024)
        self.assertEqual(json.loads(self.server.get("/models/pocket-dictionary"))["object"], "model")
        self.server.get("/v1/models/other", 404)
        self.assertEqual(json.loads(self.server.get("/props"))["total_slots"], 2)

    def test_metrics(self):
        before = self.server.metric("generation_tokens_total")
        n = self.chat(max_tokens=5)["usage"]["completion_tokens"]
        self.assertEqual(self.server.metric("generation_tokens_total"), before + n)
        text = self.server.get("/metrics").decode()
        names = set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                names.add(line.split()[2])
            elif not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                float(value)
                base = name.split("{")[0]
                self.assertTrue(any(base in (x, x + "_bucket", x + "_sum", x + "_count") for x in names), line)
        self.assertIn("moeflux_time_to_first_token_seconds", names)
        self.assertGreater(self.server.metric("iterations_total"), 0)


class Others(Api):
    def test_tokenize(self):
        text = "A lighthouse, näher ☀ <|im_end|>"
        ids = [int(x) for x in subprocess.run([BIN, "tokenize", "-m", MODEL, "-p", text], check=True,
                                              capture_output=True).stdout.split()]
        self.assertEqual(self.post("/tokenize", {"content": text}), {"tokens": ids})
        pieces = self.post("/tokenize", {"content": text, "with_pieces": True})["tokens"]
        self.assertEqual([p["id"] for p in pieces], ids)
        joined = b"".join(bytes(p["piece"]) if isinstance(p["piece"], list) else p["piece"].encode() for p in pieces)
        self.assertEqual(joined.decode(), text)
        vllm = self.post("/tokenize", {"prompt": text, "return_token_strs": True})
        self.assertEqual((vllm["count"], vllm["tokens"], vllm["max_model_len"]), (len(ids), ids, 1024))
        self.assertEqual(len(vllm["token_strs"]), len(ids))
        back = self.post("/detokenize", {"tokens": ids})
        self.assertEqual((back["content"], back["prompt"]), (text, text))
        self.refused("/detokenize", {"tokens": [9999]}, "tokens")
        self.refused("/detokenize", {}, "tokens")
        self.refused("/tokenize", {}, "prompt")

    def message(self, status=200, **more):
        return self.post("/v1/messages", dict(GREEDY, max_tokens=64, **more), status)

    def message_events(self, **more):
        events = self.server.events("/v1/messages?beta=true", dict(GREEDY, max_tokens=64, **more))
        for name, data in events:
            self.assertEqual(name, data["type"])
        return [data for _, data in events]

    def test_messages(self):
        reply = self.message()
        self.assertEqual((reply["type"], reply["role"], reply["stop_reason"]), ("message", "assistant", "end_turn"))
        self.assertEqual(reply["content"], [{"type": "text", "text": self.answer}])
        usage = reply["usage"]
        self.assertEqual(usage["input_tokens"] + usage["cache_read_input_tokens"], 15)
        self.assertEqual(self.post("/v1/messages/count_tokens", {"messages": MESSAGES}), {"input_tokens": 15})
        self.assertEqual(self.message(stop_sequences=[" (noun)"])["stop_sequence"], " (noun)")
        for more in ({}, {"stream": True}): # the one of several that came
            stops = ["no such thing", " (noun)", "nor this"]
            if more:
                got = self.message_events(stop_sequences=stops)[-2]["delta"]
            else:
                got = self.message(stop_sequences=stops)
            self.assertEqual((got["stop_reason"], got["stop_sequence"]), ("stop_sequence", " (noun)"))
        cut = self.post("/v1/messages", dict(GREEDY, max_tokens=2))
        self.assertEqual((cut["stop_reason"], cut["usage"]["output_tokens"]), ("max_tokens", 2))
        begun = MESSAGES + [{"role": "assistant", "content": self.answer[:20]}]
        self.assertEqual(self.message(messages=begun)["content"][0]["text"], self.answer[20:])

    def test_messages_stream(self):
        events = self.message_events(thinking={"type": "adaptive"}, metadata={"user_id": "x"},
                                     context_management={}, system=[{"type": "text", "text": ""}])
        self.assertEqual(events[0]["type"], "message_start")
        self.assertEqual(events[0]["message"]["content"], [])
        self.assertEqual("".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta"), self.answer)
        self.assertEqual([e["type"] for e in events[-3:]], ["content_block_stop", "message_delta", "message_stop"])
        self.assertEqual(events[-2]["delta"]["stop_reason"], "end_turn")
        self.assertGreater(events[-2]["usage"]["output_tokens"], 5)

    def test_messages_tools(self):
        tools = [{"name": t["function"]["name"], "input_schema": t["function"].get("parameters", {"type": "object"})}
                 for t in TOOLS] + [{"type": "web_search_20250305", "name": "web_search"}]
        more = {"tools": tools, "tool_choice": {"type": "tool", "name": "look_up"}}
        reply = self.message(**more)
        self.assertEqual(reply["stop_reason"], "tool_use")
        use = reply["content"][0]
        self.assertEqual((use["type"], use["name"]), ("tool_use", "look_up"))
        self.assertIn(use["input"]["word"], ("lamp", "sea"))
        events = self.message_events(**more)
        start = [e for e in events if e["type"] == "content_block_start"][0]["content_block"]
        self.assertEqual((start["type"], start["name"], start["input"]), ("tool_use", "look_up", {}))
        text = "".join(e["delta"]["partial_json"] for e in events if e["type"] == "content_block_delta")
        self.assertEqual(json.loads(text), use["input"])
        back = MESSAGES + [{"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, use]},
                           {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use["id"],
                                                         "content": [{"type": "text", "text": "A light."}]},
                                                        {"type": "text", "text": "Go on."}]}]
        self.assertEqual(self.message(messages=back)["type"], "message")
        self.assertEqual(self.message(**dict(more, tool_choice={"type": "any"}))["stop_reason"], "tool_use")

    def test_messages_refused(self):
        for more in ({"messages": []}, {"messages": [{"role": "x", "content": ""}]}, {"temperature": "x"},
                     {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, {"tool_choice": {"type": "x"}},
                     {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, {"system": 5}):
            error = self.message(400, **more)
            self.assertEqual((error["type"], error["error"]["type"]), ("error", "invalid_request_error"))
            self.assertTrue(error["request_id"].startswith("req_"))

    def response(self, status=200, **more):
        return self.post("/v1/responses", dict({"input": QUESTION, "temperature": 0}, **more), status)

    def test_responses(self):
        reply = self.response()
        self.assertEqual((reply["object"], reply["status"]), ("response", "completed"))
        item = reply["output"][0]
        self.assertEqual((item["type"], item["role"], item["status"]), ("message", "assistant", "completed"))
        self.assertEqual((item["content"][0]["type"], item["content"][0]["text"]), ("output_text", self.answer))
        self.assertEqual(reply["usage"]["input_tokens"], 15)
        cut = self.response(max_output_tokens=2)
        self.assertEqual((cut["status"], cut["incomplete_details"]), ("incomplete", {"reason": "max_output_tokens"}))
        items = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
        self.assertEqual(self.response(input=items)["output"][0]["content"][0]["text"], self.answer)
        told = self.post("/v1/responses", {"input": "x", "instructions": "Be brief.", "max_output_tokens": 1})
        self.assertGreater(told["usage"]["input_tokens"], 15)
        document = self.response(text={"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}})
        self.assertIn(json.loads(document["output"][0]["content"][0]["text"])["kind"], ("noun", "verb"))

    def test_responses_stream(self):
        events = self.server.events("/v1/responses", {"input": QUESTION, "temperature": 0})
        for i, (name, data) in enumerate(events):
            self.assertEqual((name, data["sequence_number"]), (data["type"], i))
        kinds = [name.replace("response.", "") for name, _ in events if name != "response.output_text.delta"]
        self.assertEqual(kinds, ["created", "in_progress", "output_item.added", "content_part.added",
                                 "output_text.done", "content_part.done", "output_item.done", "completed"])
        self.assertEqual("".join(d["delta"] for n, d in events if n == "response.output_text.delta"), self.answer)
        final = events[-1][1]["response"]
        self.assertEqual(final["output"][0]["content"][0]["text"], self.answer)

    def test_responses_tools(self):
        tools = [dict(type="function", **t["function"]) for t in TOOLS] + [{"type": "web_search"}]
        more = {"tools": tools, "tool_choice": {"type": "function", "name": "look_up"}}
        call = self.response(**more)["output"][0]
        self.assertEqual((call["type"], call["name"]), ("function_call", "look_up"))
        self.assertIn(json.loads(call["arguments"])["word"], ("lamp", "sea"))
        events = self.server.events("/v1/responses", dict({"input": QUESTION, "temperature": 0}, **more))
        done = [d for n, d in events if n == "response.function_call_arguments.done"][0]
        self.assertEqual(json.loads(done["arguments"]), json.loads(call["arguments"]))
        back = [{"role": "user", "content": QUESTION}, call,
                {"type": "function_call_output", "call_id": call["call_id"], "output": "A light."}]
        self.assertEqual(self.response(input=back, max_output_tokens=2)["object"], "response")
        for wrong, param in (({"previous_response_id": "x"}, "previous_response_id"), ({"input": 5}, "input"),
                             ({"input": [{"role": "x", "content": ""}]}, "input"), ({"background": 1}, "background"),
                             ({"text": {"format": {"type": "x"}}}, "text"), ({"tool_choice": 5}, "tool_choice")):
            self.refused("/v1/responses", dict({"input": QUESTION}, **wrong), param)


class Company(Api):
    args = ("--parallel", "3", "--temp", "0", "--queue", "64")

    def test_company(self):
        """Answers are the same alone and in company, and each is its client's own."""
        prompts = ["What is a %s?" % w for w in ("lighthouse", "lamp", "sea", "bird", "tree", "house", "river")]
        alone = [run("-p", p)["text"] for p in prompts[:3]]
        got = [None] * len(prompts)

        def ask(i):
            got[i] = self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": prompts[i]}]})

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        texts = [g["choices"][0]["message"]["content"] for g in got]
        self.assertEqual(texts[:3], alone)
        self.assertEqual(self.server.metric("num_requests_running"), 0)

    def test_prefix(self):
        """A conversation that goes on isn't evaluated again; bits don't change."""
        first = self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "What is a drum? " * 20}]})
        more = [{"role": "user", "content": "What is a drum? " * 20},
                {"role": "assistant", "content": first["choices"][0]["message"]["content"]},
                {"role": "user", "content": "And a flute?"}]
        second = self.post("/v1/chat/completions", {"messages": more})
        usage = second["usage"]
        self.assertGreater(usage["prompt_tokens_details"]["cached_tokens"], first["usage"]["prompt_tokens"] - 8)
        self.assertEqual(second["timings"]["prompt_n"] + second["timings"]["cache_n"], usage["prompt_tokens"])
        with Server("--temp", "0") as fresh:
            alone = fresh.post("/v1/chat/completions", {"messages": more})
            self.assertEqual(alone["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
            self.assertEqual(alone["choices"][0]["message"], second["choices"][0]["message"])

    def test_prefix_on_disk(self):
        """And neither after a new start, not even one after kill -9."""
        folder = serving.tempfile.mkdtemp()
        body = {"messages": [{"role": "user", "content": "What is a drum? " * 40}], "max_tokens": 4}
        args = ("--temp", "0", "--kv-dir", folder, "--kv-disk", "64M")
        cached = []
        for how in (serving.signal.SIGTERM, serving.signal.SIGKILL, serving.signal.SIGTERM):
            server = Server(*args).wait_ready()
            reply = server.post("/v1/chat/completions", body)
            cached.append(reply["usage"]["prompt_tokens_details"]["cached_tokens"])
            server.stop(how, 0 if how == serving.signal.SIGTERM else -how)
        n = reply["usage"]["prompt_tokens"]
        self.assertEqual(cached[0], 0)
        self.assertGreater(min(cached[1:]), n - 16)
        self.assertLess(sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder)), 64 << 20)
        serving.shutil.rmtree(folder)

    def test_kept_for_another(self):
        """What a session held is on disk before another conversation has the session."""
        with tempfile.TemporaryDirectory() as folder, Server("--temp", "0", "--kv-dir", folder) as server:
            def ask(word):
                return server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": word * 30}],
                                                            "max_tokens": 4})
            first = [ask(word) for word in ("drum ", "bird ", "sea ")]
            again = [ask(word) for word in ("drum ", "bird ", "sea ")]
            for a, b in zip(first, again):
                self.assertEqual(a["choices"][0]["message"], b["choices"][0]["message"])
                self.assertGreater(b["usage"]["prompt_tokens_details"]["cached_tokens"], a["usage"]["prompt_tokens"] - 8)

    def test_disk_full(self):
        """A drive that is full costs states, no answers, and leaves nothing half."""
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
        with tempfile.TemporaryDirectory() as folder:
            server = Server("--temp", "0", "--kv-dir", folder, preexec_fn=limit).wait_ready()
            body = {"messages": [{"role": "user", "content": "drum " * 60}], "max_tokens": 4}
            texts = {server.post("/v1/chat/completions", body)["choices"][0]["message"]["content"] for _ in range(3)}
            server.until(lambda: folder in server.log())
            self.assertEqual(len(texts), 1)
            self.assertRegex(server.stop(), re.escape(folder) + "/[^ ]*: .*(File too large|space)")
            self.assertEqual(os.listdir(folder), ["lock"])

    def test_killed_while_writing(self):
        """kill -9 at any moment of writing: what is there then is whole."""
        words = ["drum", "bird", "sea", "lamp", "house"]
        with tempfile.TemporaryDirectory() as folder:
            args = ("--temp", "0", "--kv-dir", folder, "-c", "4096")
            answers = {}
            for turn in range(2 if serving.SANITIZED else 4):
                server = Server(*args).wait_ready()
                for word in words:
                    body = {"messages": [{"role": "user", "content": (word + " ") * 300}], "max_tokens": 2}
                    text = server.post("/v1/chat/completions", body)["choices"][0]["message"]["content"]
                    self.assertEqual(answers.setdefault(word, text), text)
                time.sleep(0.003 * turn)
                server.stop(serving.signal.SIGKILL, -9)
            with Server(*args) as server:
                self.assertFalse([f for f in os.listdir(folder) if ".tmp-" in f])
                text = server.post("/v1/chat/completions", body)
                self.assertEqual(text["choices"][0]["message"]["content"], answers[words[-1]])

    def test_defaults(self):
        """--temp 0 is what requests get that don't say otherwise."""
        reply = self.post("/v1/chat/completions", {"messages": MESSAGES})
        self.assertEqual(reply["choices"][0]["message"]["content"], self.answer)


if __name__ == "__main__":
    serving.main()
