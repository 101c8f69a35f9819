"""Two further clients that people use, litellm and llm, against the server: chat, streaming, tools and back.
Needs both packages, so it is an opt-in stage of .ci/run (`.ci/run clients`) and no part of `make check`.

  clients.py [-v]
"""
import json
import os
import subprocess
import sys
import tempfile

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True" # it asks nobody else for anything
import litellm

import serving
from serving import Asked

MESSAGES = Asked.MESSAGES
TOOL = {"type": "function", "function": {
    "name": "look_up", "description": "Looks up.",
    "parameters": {"type": "object", "properties": {"word": {"enum": ["lamp", "sea"]}}, "required": ["word"],
                   "additionalProperties": False}}}
LLM_MODELS = """- model_id: moeflux
  model_name: any
  api_base: %s
  api_key_name: none
  supports_tools: true
"""


class Clients(Asked):
    # ---- litellm ----

    def ask(self, **more):
        return litellm.completion(**{"model": "openai/any", "api_base": self.url + "/v1", "api_key": "none",
                                     "messages": MESSAGES, **more})

    def test_litellm(self):
        reply = self.ask()
        self.assertEqual((reply.choices[0].message.content, reply.choices[0].finish_reason), (self.answer, "stop"))
        self.assertEqual(reply.usage.prompt_tokens, 15)
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), self.answer)

    def test_litellm_tools(self):
        forced = {"tools": [TOOL], "tool_choice": "required"}
        message = self.ask(**forced).choices[0].message
        call = message.tool_calls[0]
        self.assertEqual(call.function.name, "look_up")
        self.assertIn(json.loads(call.function.arguments)["word"], ("lamp", "sea"))
        whole = litellm.stream_chunk_builder(list(self.ask(stream=True, **forced)), messages=MESSAGES)
        streamed = whole.choices[0].message.tool_calls[0]
        self.assertEqual((streamed.function.name, streamed.function.arguments), ("look_up", call.function.arguments))
        self.assertEqual(whole.choices[0].finish_reason, "tool_calls")
        back = MESSAGES + [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "A light."}]
        self.assertTrue(self.ask(messages=back, tools=[TOOL], max_tokens=4).choices[0].message.content)

    def test_litellm_anthropic(self):
        more = {"model": "anthropic/any", "api_base": self.url, "max_tokens": 64}
        self.assertEqual(self.ask(**more).choices[0].message.content, self.answer)
        chunks = list(self.ask(stream=True, **more))
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), self.answer)
        call = self.ask(tools=[TOOL], tool_choice="required", **more).choices[0].message.tool_calls[0]
        self.assertIn(json.loads(call.function.arguments)["word"], ("lamp", "sea"))

    def test_litellm_errors(self):
        with self.assertRaises(litellm.BadRequestError):
            self.ask(temperature="hot")
        long = [{"role": "user", "content": "sea " * 3000}]
        for more in ({}, {"model": "anthropic/any", "api_base": self.url, "max_tokens": 8}):
            with self.assertRaises(litellm.ContextWindowExceededError):
                self.ask(messages=long, **more)

    # ---- llm ----

    def llm(self, *args):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "extra-openai-models.yaml"), "w", encoding="utf-8") as f:
                f.write(LLM_MODELS % (self.url + "/v1"))
            done = subprocess.run([sys.executable, "-m", "llm", *args], capture_output=True, timeout=10 * serving.TIMEOUT_S,
                                  env=dict(os.environ, LLM_USER_PATH=folder))
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout.decode().rstrip("\n")

    def test_llm(self):
        self.assertEqual(self.llm("-m", "moeflux", "--key", "none", MESSAGES[0]["content"]), self.answer)
        self.assertEqual(self.llm("-m", "moeflux", "--key", "none", "--no-stream", MESSAGES[0]["content"]), self.answer)

    def test_llm_tools(self):
        """It can't force a call, and this model makes none by itself: the tools go there, and an answer comes."""
        for more in ((), ("--no-stream",)):
            out = self.llm("-m", "moeflux", "--key", "none", *more, "--functions",
                           'def look_up(word: str) -> str:\n    "Looks up."\n    return word', MESSAGES[0]["content"])
            self.assertTrue(out)


if __name__ == "__main__":
    serving.main()
