"""Libraries that programs are built with, against the server: instructor, langchain-openai, pydantic-ai, openai-agents,
claude-agent-sdk (whose wheel has Claude Code in it) and lm-eval (with transformers), each as its documentation has it. Each
needs its packages, so this is an opt-in stage of .ci/run (`.ci/run clients`).

  frameworks.py [-v] [Instructor | LangChain | PydanticAi | OpenAIAgents | ClaudeAgent | LmEval]
"""
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from typing import Literal

import serving
from serving import Asked

QUESTION, MESSAGES = Asked.QUESTION, Asked.MESSAGES
KINDS = ("noun", "verb")


class Framework(Asked):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.url += "/v1"


class Instructor(Framework):
    def test_modes(self):
        import instructor
        import openai
        import pydantic

        class Word(pydantic.BaseModel):
            kind: Literal["noun", "verb"]
            page: int = pydantic.Field(ge=1, le=9)

        with openai.OpenAI(base_url=self.url, api_key="none", max_retries=0) as plain:
            for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
                with self.subTest(mode):
                    client = instructor.from_openai(plain, mode=mode)
                    word = client.chat.completions.create(model="any", messages=MESSAGES, response_model=Word, max_retries=0)
                    self.assertIn(word.kind, KINDS)
                    parts = list(client.chat.completions.create_partial(model="any", messages=MESSAGES, response_model=Word,
                                                                        max_retries=0))
                    self.assertEqual(parts[-1].model_dump(), word.model_dump())


class LangChain(Framework):
    def setUp(self):
        from langchain_openai import ChatOpenAI
        self.chat = ChatOpenAI(model="any", base_url=self.url, api_key="none", max_retries=0)
        self.responses = ChatOpenAI(model="any", base_url=self.url, api_key="none", max_retries=0, use_responses_api=True)

    def test_answers(self):
        for client in (self.chat, self.responses):
            reply = client.invoke(QUESTION)
            self.assertEqual(reply.text if isinstance(reply.text, str) else reply.text(), self.answer)
            self.assertEqual(reply.usage_metadata["input_tokens"], 15)
            pieces = list(client.stream(QUESTION))
            whole = pieces[0]
            for piece in pieces[1:]:
                whole += piece
            self.assertEqual(whole.text if isinstance(whole.text, str) else whole.text(), self.answer)

    def test_tools(self):
        import pydantic
        from langchain_core.messages import HumanMessage, ToolMessage
        from langchain_core.tools import tool

        @tool
        def look_up(word: Literal["lamp", "sea"]) -> str:
            """Looks up."""
            return "A light: " + word

        for client in (self.chat, self.responses):
            bound = client.bind_tools([look_up], tool_choice="look_up", parallel_tool_calls=False, strict=True)
            message = bound.invoke(QUESTION)
            call = message.tool_calls[0]
            self.assertEqual(call["name"], "look_up")
            back = [HumanMessage(QUESTION), message, ToolMessage(look_up.invoke(call["args"]), tool_call_id=call["id"])]
            self.assertTrue(client.bind(max_tokens=4).invoke(back))
            streamed = None
            for piece in bound.stream(QUESTION):
                streamed = piece if streamed is None else streamed + piece
            self.assertEqual(streamed.tool_calls[0]["args"], call["args"])

        class Word(pydantic.BaseModel):
            """A word."""
            kind: Literal["noun", "verb"]

        for client in (self.chat, self.responses):
            for method in ("json_schema", "function_calling"):
                self.assertIn(client.with_structured_output(Word, method=method).invoke(QUESTION).kind, KINDS)


class PydanticAi(Framework):
    def models(self):
        from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
        from pydantic_ai.providers.openai import OpenAIProvider
        provider = OpenAIProvider(base_url=self.url, api_key="none")
        return [OpenAIChatModel("any", provider=provider), OpenAIResponsesModel("any", provider=provider)]

    def test_answers(self):
        from pydantic_ai import Agent

        async def stream(agent):
            async with agent.run_stream(QUESTION) as result:
                return await result.get_output()

        for model in self.models():
            agent = Agent(model)
            self.assertEqual(agent.run_sync(QUESTION).output, self.answer)
            self.assertEqual(asyncio.run(stream(agent)), self.answer)

    def test_anthropic(self):
        from pydantic_ai import Agent
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider
        model = AnthropicModel("any", provider=AnthropicProvider(base_url=self.url[:-len("/v1")], api_key="none"))
        self.assertEqual(Agent(model).run_sync(QUESTION).output, self.answer)

    def test_output(self):
        import pydantic
        from pydantic_ai import Agent, NativeOutput, ToolOutput

        class Word(pydantic.BaseModel):
            kind: Literal["noun", "verb"]

        for model in self.models():
            for way in (ToolOutput, NativeOutput):
                self.assertIn(Agent(model, output_type=way(Word)).run_sync(QUESTION).output.kind, KINDS)


class OpenAIAgents(Framework):
    def models(self):
        from agents import OpenAIChatCompletionsModel, OpenAIResponsesModel
        from openai import AsyncOpenAI
        client = AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0)
        return [kind(model="any", openai_client=client) for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel)]

    def each(self, ask, n=2):
        """In one loop, which the client's connections belong to."""
        async def run():
            for model in self.models()[:n]:
                await ask(model)
        asyncio.run(run())

    def setUp(self):
        import agents
        agents.set_tracing_disabled(True)

    def test_answers(self):
        from agents import Agent, Runner

        async def ask(model):
            agent = Agent(name="a", model=model)
            self.assertEqual((await Runner.run(agent, QUESTION)).final_output, self.answer)
            streamed = Runner.run_streamed(agent, QUESTION)
            text = [e.data.delta async for e in streamed.stream_events()
                    if e.type == "raw_response_event" and e.data.type == "response.output_text.delta"]
            self.assertEqual(("".join(text), streamed.final_output), (self.answer, self.answer))
        self.each(ask)

    def test_goes_on(self):
        """From an answer that the server has kept, as from one sent again."""
        from agents import Agent, Runner

        async def ask(model):
            agent = Agent(name="a", model=model)
            first = await Runner.run(agent, QUESTION)
            short = await Runner.run(agent, "And a ship?", previous_response_id=first.last_response_id)
            whole = await Runner.run(agent, first.to_input_list() + [{"role": "user", "content": "And a ship?"}])
            self.assertEqual(short.final_output, whole.final_output)
            self.assertEqual(short.raw_responses[0].usage.input_tokens, whole.raw_responses[0].usage.input_tokens)
        self.each(ask, n=1)

    def test_tools(self):
        import pydantic
        from agents import Agent, ModelSettings, Runner, function_tool
        said = []

        @function_tool
        def look_up(word: Literal["lamp", "sea"]) -> str:
            """Looks up."""
            said.append(word)
            return "A light."

        class Word(pydantic.BaseModel):
            kind: Literal["noun", "verb"]

        async def ask(model):
            said.clear()
            settings = ModelSettings(tool_choice="required", max_tokens=64)
            self.assertTrue((await Runner.run(Agent(name="a", model=model, tools=[look_up], model_settings=settings),
                                              QUESTION)).final_output)
            self.assertIn(said[0], ("lamp", "sea"))
            self.assertIn((await Runner.run(Agent(name="a", model=model, output_type=Word), QUESTION)).final_output.kind, KINDS)
        self.each(ask)


class ClaudeAgent(Framework):
    def ask(self, **more):
        """What came: texts of whole messages, events of the stream, and the result, which is raised where it is an error."""
        from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, ResultMessage, query
        url = self.url[:-len("/v1")]

        async def run(folder):
            texts, events, result = [], [], None
            env = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none", "HOME": folder, "DISABLE_AUTOUPDATER": "1",
                   "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
            options = ClaudeAgentOptions(env=env, cwd=folder, max_turns=1, setting_sources=[], **more)
            async for message in query(prompt=QUESTION, options=options):
                if isinstance(message, AssistantMessage):
                    texts += [block.text for block in message.content]
                elif isinstance(message, ResultMessage):
                    result = message
                elif type(message).__name__ == "StreamEvent":
                    events.append(message.event)
            return texts, events, result

        with tempfile.TemporaryDirectory() as folder:
            return asyncio.run(run(folder))

    def test_answers(self):
        for partial in (False, True):
            texts, events, result = self.ask(system_prompt="Be brief.", tools=[], include_partial_messages=partial)
            self.assertEqual((result.subtype, result.is_error, result.result), ("success", False, "".join(texts)))
            self.assertTrue(texts[0])
            self.assertGreater(result.usage["output_tokens"], 1)
            said = "".join(e["delta"].get("text", "") for e in events if e["type"] == "content_block_delta")
            self.assertEqual(said, "".join(texts) if partial else "")

    def test_too_long(self):
        """Its own system prompt is longer than this model's context: it knows, and says so."""
        with self.assertRaisesRegex(Exception, r"Prompt is too long.*limit 1023"):
            self.ask(system_prompt={"type": "preset", "preset": "claude_code"})


TASK = """task: moeflux_words
dataset_path: json
dataset_kwargs:
  data_files: {test: %s}
test_split: test
output_type: %s
doc_to_text: "{{question}}"
doc_to_target: "{{%s}}"
%s
metric_list:
  - metric: %s
"""
ROWS = [{"question": "A lamp is", "choices": ["a light", "a fish"], "label": 0, "answer": "x"},
        {"question": "The sea is", "choices": ["dry", "water"], "label": 1, "answer": "y"}]


class LmEval(Framework):
    def run_task(self, kind, target, more, metric, model="local-completions", path="/completions", arguments=""):
        with tempfile.TemporaryDirectory() as folder:
            data = os.path.join(folder, "rows.jsonl")
            with open(data, "w", encoding="utf-8") as f:
                f.writelines(json.dumps(row) + "\n" for row in ROWS)
            with open(os.path.join(folder, "task.yaml"), "w", encoding="utf-8") as f:
                f.write(TASK % (data, kind, target, more, metric))
            env = dict(os.environ, HF_HOME=folder, HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", OPENAI_API_KEY="none")
            done = subprocess.run([sys.executable, "-m", "lm_eval", "--model", model, "--model_args",
                                   "model=any,base_url=%s%s,num_concurrent=1,max_retries=1%s" % (self.url, path, arguments),
                                   "--include_path", folder, "--tasks", "moeflux_words", "--output_path", folder,
                                   "--log_samples"], capture_output=True, env=env, cwd=folder)
            self.assertEqual(done.returncode, 0, done.stderr.decode())
            samples = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names
                       if name.startswith("samples_")]
            with open(samples[0], encoding="utf-8") as f:
                return [json.loads(line) for line in f]

    def test_loglikelihood(self):
        """Prompts of token ids; the figures have to be those of a prompt in words with echo."""
        for sample in self.run_task("multiple_choice", "label", 'doc_to_choice: "{{choices}}"', "acc",
                                    arguments=",tokenizer_backend=huggingface,tokenizer=" + serving.MODEL):
            row = ROWS[sample["doc_id"]]
            for choice, got in zip(row["choices"], sample["filtered_resps"]):
                echoed = self.server.post("/v1/completions", {"prompt": row["question"] + " " + choice, "echo": True, "logprobs": 1,
                                                              "max_tokens": 0})["choices"][0]["logprobs"]
                want = sum(lp for lp, at in zip(echoed["token_logprobs"], echoed["text_offset"])
                           if at >= len(row["question"]))
                self.assertAlmostEqual(float(got[0]), want, places=3)

    def test_generate(self):
        more = "generation_kwargs: {until: [\"\\n\"], max_gen_toks: 6, do_sample: false}"
        want = [self.server.post("/v1/completions", {"prompt": row["question"], "max_tokens": 6, "temperature": 0,
                                                     "stop": ["\n"]})["choices"][0]["text"] for row in ROWS]
        samples = self.run_task("generate_until", "answer", more, "exact_match",
                                arguments=",tokenizer_backend=None,tokenized_requests=False")
        self.assertEqual([s["resps"][0][0] for s in sorted(samples, key=lambda s: s["doc_id"])], want)


if __name__ == "__main__":
    serving.main()
