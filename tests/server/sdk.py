"""The openai and anthropic packages against the server: every endpoint, streaming and not, with tools and back.
Needs both packages, so it is a stage of .ci/run and no part of `make check`.

  sdk.py [-v]
"""
import json

import anthropic
import openai
import openai.types.conversations
import openai.types.responses
import pydantic

import serving
from serving import Case, Server

MESSAGES = [{"role": "user", "content": "What is a lighthouse?"}]
PARAMETERS = {"type": "object", "properties": {"word": {"enum": ["lamp", "sea"]}}, "required": ["word"],
              "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks up.", "parameters": PARAMETERS}}
MODEL = "pocket-dictionary"


class Sdk(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--parallel", "2").wait_ready()
        url = "http://127.0.0.1:%d" % cls.server.port
        cls.openai = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
        cls.anthropic = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
        cls.answer = cls.server.post("/v1/chat/completions", {"messages": MESSAGES, "temperature": 0})["choices"][0][
            "message"]["content"]

    @classmethod
    def tearDownClass(cls):
        cls.openai.close()
        cls.anthropic.close()
        cls.server.stop()

    def chat(self, **more):
        return self.openai.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, "temperature": 0, **more})

    def message(self, **more):
        # Its newest versions don't know temperature any more; servers do.
        return self.anthropic.messages.create(**{"model": MODEL, "messages": MESSAGES, "max_tokens": 64,
                                                 "extra_body": {"temperature": 0}, **more})

    # ---- openai ----

    def test_models(self):
        self.assertEqual([m.id for m in self.openai.models.list()], [MODEL])
        self.assertEqual(self.openai.models.retrieve(MODEL).object, "model")
        self.assertEqual([m.id for m in self.anthropic.models.list()], [MODEL])

    def test_chat(self):
        reply = self.chat(logprobs=True, top_logprobs=2, seed=1, n=2)
        self.assertEqual([c.message.content for c in reply.choices], [self.answer] * 2)
        self.assertEqual(len(reply.choices[0].logprobs.content[0].top_logprobs), 2)
        self.assertEqual(reply.usage.prompt_tokens_details.cached_tokens + reply.usage.prompt_tokens > 0, True)

    def test_chat_stream(self):
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), self.answer)
        self.assertGreater(chunks[-1].usage.completion_tokens, 5)
        with self.openai.chat.completions.stream(model=MODEL, messages=MESSAGES, temperature=0) as stream:
            for _ in stream:
                pass
            self.assertEqual(stream.get_final_completion().choices[0].message.content, self.answer)

    def test_chat_format(self):
        reply = self.chat(response_format={"type": "json_schema", "json_schema": {"name": "word", "strict": True,
                                                                                  "schema": PARAMETERS}})
        self.assertIn(json.loads(reply.choices[0].message.content)["word"], ("lamp", "sea"))

    def test_chat_tools(self):
        forced = {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look_up"}}}
        message = self.chat(**forced).choices[0].message
        call = message.tool_calls[0]
        self.assertIn(json.loads(call.function.arguments)["word"], ("lamp", "sea"))
        back = MESSAGES + [message, {"role": "tool", "tool_call_id": call.id, "content": "A light."}]
        self.assertTrue(self.chat(messages=back, max_tokens=4).choices[0].message.content)
        with self.openai.chat.completions.stream(model=MODEL, messages=MESSAGES, temperature=0, **forced) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion().choices[0]
        self.assertEqual(final.finish_reason, "tool_calls")
        self.assertEqual(final.message.tool_calls[0].function.arguments, call.function.arguments)

    def test_completions(self):
        reply = self.openai.completions.create(model=MODEL, prompt="A lighthouse is", max_tokens=4, echo=True, logprobs=1,
                                               temperature=0)
        self.assertTrue(reply.choices[0].text.startswith("A lighthouse is"))
        self.assertIsNone(reply.choices[0].logprobs.token_logprobs[0])
        pieces = self.openai.completions.create(model=MODEL, prompt=[[33, 34, 35]], max_tokens=4, stream=True)
        self.assertGreater(len(list(pieces)), 1)

    def test_responses(self):
        reply = self.openai.responses.create(model=MODEL, input="What is a lighthouse?", temperature=0)
        self.assertEqual((reply.status, reply.output_text), ("completed", self.answer))
        with self.openai.responses.stream(model=MODEL, input="What is a lighthouse?", temperature=0) as stream:
            kinds = [e.type for e in stream]
            self.assertEqual(stream.get_final_response().output_text, self.answer)
        self.assertIn("response.output_text.delta", kinds)

    def test_responses_logprobs(self):
        ask = {"model": MODEL, "input": "What is a lighthouse?", "temperature": 0, "top_logprobs": 3,
               "include": ["message.output_text.logprobs"]}
        whole = self.openai.responses.create(**ask).output[0].content[0].logprobs
        self.assertEqual("".join(x.token for x in whole), self.answer)
        with self.openai.responses.stream(**ask) as stream:
            came = [x for e in stream if e.type == "response.output_text.delta" for x in e.logprobs]
            final = stream.get_final_response()
        self.assertEqual([(x.token, x.logprob) for x in came], [(x.token, x.logprob) for x in whole])
        self.assertEqual((final.output[0].content[0].logprobs, final.top_logprobs), (whole, 3))

    def test_responses_tools(self):
        tools = [{"type": "function", "name": "look_up", "parameters": PARAMETERS, "strict": True}]
        forced = {"model": MODEL, "tools": tools, "tool_choice": {"type": "function", "name": "look_up"}, "temperature": 0}
        items = [{"role": "user", "content": "What is a lighthouse?"}]
        call = self.openai.responses.create(input=items, **forced).output[0]
        self.assertIn(json.loads(call.arguments)["word"], ("lamp", "sea"))
        items += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "A light."}]
        reply = self.openai.responses.create(model=MODEL, input=items, max_output_tokens=4)
        self.assertEqual(reply.status, "incomplete")
        with self.openai.responses.stream(input=items[:1], **forced) as stream:
            for _ in stream:
                pass
            self.assertEqual(stream.get_final_response().output[0].arguments, call.arguments)

    def test_responses_reference(self):
        first = self.openai.responses.create(model=MODEL, input="What is a lighthouse?", temperature=0)
        ask = {"role": "user", "content": "And a ship?"}
        named = self.openai.responses.create(model=MODEL, max_output_tokens=8, temperature=0, input=[
            {"role": "user", "content": "What is a lighthouse?"}, {"type": "item_reference", "id": first.output[0].id}, ask])
        chained = self.openai.responses.create(model=MODEL, max_output_tokens=8, temperature=0, input=[ask],
                                               previous_response_id=first.id)
        self.assertEqual((named.output_text, named.usage.input_tokens), (chained.output_text, chained.usage.input_tokens))
        with self.assertRaises(openai.NotFoundError) as caught:
            self.openai.responses.create(model=MODEL, input=[{"type": "item_reference", "id": "msg_unknown"}])
        self.assertEqual(caught.exception.param, "input")

    def test_responses_stored(self):
        """Every request about stored answers, and what comes held against the package's types."""
        first = self.openai.responses.create(model=MODEL, input="What is a lighthouse?", temperature=0, metadata={"a": "b"})
        second = self.openai.responses.create(model=MODEL, input="And a ship?", previous_response_id=first.id,
                                              max_output_tokens=8)
        count = self.openai.responses.input_tokens.count(model=MODEL, input="And a ship?", previous_response_id=first.id)
        self.assertEqual(count.input_tokens, second.usage.input_tokens)
        self.assertEqual(self.openai.responses.retrieve(first.id).output_text, self.answer)
        items = list(self.openai.responses.input_items.list(second.id, order="asc", limit=2))
        self.assertEqual([i.role for i in items], ["user", "assistant", "user"])
        self.valid(openai.types.responses.Response, json.loads(self.server.get("/v1/responses/" + first.id)))
        self.valid(openai.types.responses.ResponseItemList,
                   json.loads(self.server.get("/v1/responses/%s/input_items" % second.id)))
        with self.assertRaises(openai.BadRequestError):
            self.openai.responses.cancel(first.id)
        self.openai.responses.delete(first.id)
        for gone in (self.openai.responses.retrieve, self.openai.responses.delete, self.openai.responses.cancel):
            with self.assertRaises(openai.NotFoundError):
                gone(first.id)
        with self.assertRaises(openai.BadRequestError) as caught:
            self.openai.responses.create(model=MODEL, input="x", previous_response_id=first.id)
        self.assertEqual((caught.exception.code, caught.exception.param), ("previous_response_not_found", "previous_response_id"))

    def test_responses_background(self):
        first = self.openai.responses.create(model=MODEL, input="What is a lighthouse?", temperature=0, background=True)
        self.assertEqual((first.status, first.background, first.output), ("queued", True, []))
        self.valid(openai.types.responses.Response, json.loads(first.to_json()))
        while first.status in ("queued", "in_progress"):
            first = self.openai.responses.retrieve(first.id)
        self.assertEqual((first.status, first.output_text), ("completed", self.answer))
        self.valid(openai.types.responses.Response, json.loads(self.server.get("/v1/responses/" + first.id)))
        self.assertEqual(self.openai.responses.cancel(first.id).status, "completed")
        endless = {"model": MODEL, "input": "x", "background": True, "extra_body": {"grammar": 'root ::= [a-z ]{2000}'}}
        ids = [self.openai.responses.create(**endless).id for _ in range(2)]
        with self.assertRaises(openai.BadRequestError) as caught:
            self.openai.responses.create(model=MODEL, input="x", previous_response_id=ids[0])
        self.assertEqual(caught.exception.param, "previous_response_id")
        cancelled = self.openai.responses.cancel(ids[0])
        self.assertEqual((cancelled.id, cancelled.status), (ids[0], "cancelled"))
        self.assertEqual(self.openai.responses.retrieve(ids[0]).status, "cancelled")
        self.openai.responses.delete(ids[1])
        with self.assertRaises(openai.NotFoundError):
            self.openai.responses.retrieve(ids[1])
        for more in ({"store": False}, {"stream": True}):
            with self.assertRaises(openai.BadRequestError) as caught:
                self.openai.responses.create(model=MODEL, input="x", background=True, **more)
            self.assertEqual(caught.exception.param, "background")

    def test_conversations(self):
        talks = self.openai.conversations
        made = talks.create(items=[{"role": "user", "content": "What is a lighthouse?"}], metadata={"a": "b"})
        self.assertEqual((made.metadata, talks.retrieve(made.id)), ({"a": "b"}, made))
        first = self.openai.responses.create(model=MODEL, input=[], conversation=made.id, temperature=0)
        self.assertEqual((first.output_text, first.conversation.id), (self.answer, made.id))
        with self.openai.responses.stream(model=MODEL, input="And a ship?", conversation=made.id) as stream:
            self.assertEqual(stream.get_final_response().conversation.id, made.id)
        items = list(talks.items.list(made.id, order="asc", limit=2))
        self.assertEqual([i.role for i in items], ["user", "assistant"] * 2)
        added = talks.items.create(made.id, items=[{"role": "user", "content": "x", "type": "message"}])
        self.assertEqual(talks.items.retrieve(added.data[0].id, conversation_id=made.id), added.data[0])
        for path in ("", "/items", "/items/" + items[1].id):
            kind = {"": openai.types.conversations.Conversation, "/items": openai.types.conversations.ConversationItemList}
            self.valid(kind.get(path, openai.types.conversations.ConversationItem),
                       json.loads(self.server.get("/v1/conversations/" + made.id + path)))
        self.assertEqual(talks.items.delete(added.data[0].id, conversation_id=made.id).id, made.id)
        self.assertEqual(talks.update(made.id, metadata={"c": "d"}).metadata, {"c": "d"})
        self.assertTrue(talks.delete(made.id).deleted)
        with self.assertRaises(openai.NotFoundError):
            talks.retrieve(made.id)
        with self.assertRaises(openai.NotFoundError):
            self.openai.responses.create(model=MODEL, input="x", conversation=made.id)

    def test_too_long(self):
        """What both packages, and who looks into their errors, know a context by that is too small."""
        long = [{"role": "user", "content": "sea " * 3000}]
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(messages=long)
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        with self.assertRaises(anthropic.BadRequestError) as caught:
            self.message(messages=long)
        self.assertIn("prompt is too long", caught.exception.message)
        self.assertTrue(caught.exception.request_id)
        self.assertGreater(self.anthropic.messages.count_tokens(model=MODEL, messages=long).input_tokens, 3000)
        with self.assertRaises(anthropic.NotFoundError) as caught:
            self.anthropic.models.retrieve("other")
        self.assertEqual(caught.exception.body["error"]["type"], "not_found_error")

    def valid(self, kind, value):
        """The packages take nearly anything; asked to, they hold it against their types."""
        pydantic.TypeAdapter(kind).validate_python(value)

    def test_types(self):
        self.valid(anthropic.types.ModelInfo, json.loads(self.server.get("/v1/models"))["data"][0])
        self.valid(openai.types.Model, json.loads(self.server.get("/v1/models"))["data"][0])
        ask = {"messages": MESSAGES, "max_tokens": 40}
        for more in ({}, {"logprobs": True, "top_logprobs": 2}, {"tools": [TOOL], "tool_choice": "required"}, {"n": 2}):
            self.valid(openai.types.chat.ChatCompletion, self.server.post("/v1/chat/completions", dict(ask, **more)))
            body = dict(ask, stream_options={"include_usage": True}, **more)
            for _, event in self.server.events("/v1/chat/completions", body)[:-1]:
                self.valid(openai.types.chat.ChatCompletionChunk, event)
        tool = dict(TOOL["function"], type="function", strict=True)
        schema = {"format": {"type": "json_schema", "name": "a", "schema": PARAMETERS}}
        logprobs = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
        for more in ({}, {"tools": [tool], "tool_choice": "required"}, {"text": schema}, {"max_output_tokens": 2}, logprobs):
            body = dict({"input": "What is a lamp?", "max_output_tokens": 40}, **more)
            self.valid(openai.types.responses.Response, self.server.post("/v1/responses", body))
            for _, event in self.server.events("/v1/responses", body):
                self.valid(openai.types.responses.ResponseStreamEvent, event)
        tool = {"name": "look_up", "input_schema": PARAMETERS}
        for more in ({}, {"tools": [tool], "tool_choice": {"type": "any"}}, {"max_tokens": 2}, {"stop_sequences": ["a"]}):
            self.valid(anthropic.types.Message, self.server.post("/v1/messages", dict(ask, **more)))
            for name, event in self.server.events("/v1/messages", dict(ask, **more)):
                if name != "ping":
                    self.valid(anthropic.types.RawMessageStreamEvent, event)

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(temperature=-1)
        self.assertEqual((caught.exception.param, caught.exception.type), ("temperature", "invalid_request_error"))
        with self.assertRaises(openai.NotFoundError):
            self.openai.models.retrieve("other")
        with self.assertRaises(anthropic.BadRequestError) as caught:
            self.message(messages=[{"role": "nobody", "content": "x"}])
        self.assertEqual(caught.exception.body["error"]["type"], "invalid_request_error")
        with self.assertRaises(openai.NotFoundError):
            self.openai.embeddings.create(model=MODEL, input="x")

    # ---- anthropic ----

    def test_messages(self):
        reply = self.message()
        self.assertEqual((reply.stop_reason, reply.content[0].text), ("end_turn", self.answer))
        self.assertEqual(self.anthropic.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens, 15)
        with self.anthropic.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=64, extra_body={"temperature": 0}) as stream:
            self.assertEqual("".join(stream.text_stream), self.answer)
            self.assertEqual(stream.get_final_message().stop_reason, "end_turn")

    def test_messages_tools(self):
        forced = {"tools": [{"name": "look_up", "input_schema": PARAMETERS}],
                  "tool_choice": {"type": "tool", "name": "look_up"}}
        reply = self.message(**forced)
        use = reply.content[0]
        self.assertEqual((reply.stop_reason, use.type), ("tool_use", "tool_use"))
        back = MESSAGES + [{"role": "assistant", "content": reply.content},
                           {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "ok"}]}]
        self.assertTrue(self.message(messages=back, max_tokens=4).content[0].text)
        with self.anthropic.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=64, extra_body={"temperature": 0},
                                            **forced) as stream:
            final = stream.get_final_message()
        self.assertEqual(final.content[0].input, use.input)


if __name__ == "__main__":
    serving.main()
