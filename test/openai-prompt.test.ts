/** Goal: what a template is given of a chat, and what the worker is told of it. Method: requests as clients send them, over a fake text model that prints its input. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { JsonObject } from '../src/ports.ts'
import type { ChatTemplateInput } from '../src/text/text-model.ts'
import { byteTextModel, FakeCatalog, FakeModel, saying, startOpenAi } from './openai-kit.ts'

async function planned(body: JsonObject, reasoning: string | null = null): Promise<{ readonly status: number; readonly input: ChatTemplateInput | undefined; readonly request: JsonObject | undefined; readonly answer: string }> {
  let input: ChatTemplateInput | undefined
  const text = byteTextModel({ renderChat: (given) => { input = given; return 'prompt' } })
  const model = new FakeModel(saying('ok'), { text, changes: { parsers: { toolCall: null, reasoning } } })
  const started = await startOpenAi(new FakeCatalog(model))
  const answer = await started.post('/v1/chat/completions', { model: 'tiny', messages: [{ role: 'user', content: 'x' }], ...body })
  const result = { status: answer.status, input, request: model.requests[0], answer: await answer.text() }
  await started.server.close(0)
  return result
}

test('the words for thinking agree, whichever the client uses; engines that parse reasoning are told', async () => {
  const on = { thinking: true, enable_thinking: true, thinking_mode: 'enabled' }
  const off = { thinking: false, enable_thinking: false, thinking_mode: 'disabled' }
  for (const [body, variables] of [
    [{}, {}],
    [{ chat_template_kwargs: { foo: 1 } }, { foo: 1 }],
    [{ chat_template_kwargs: { thinking: true } }, on],
    [{ chat_template_kwargs: { enable_thinking: false, foo: 2 } }, { ...off, foo: 2 }],
    [{ chat_template_kwargs: { thinking_mode: 'disabled' } }, off],
    [{ reasoning_effort: 'low' }, { ...on, reasoning_effort: 'low' }],
    [{ reasoning_effort: 'none' }, { ...off, reasoning_effort: 'none' }],
  ] as const) {
    const plain = await planned(body)
    assert.deepEqual(plain.input?.variables, variables)
    assert.equal(plain.request?.['extra_args'], undefined)
    const parsing = await planned(body, 'deepseek_r1')
    assert.deepEqual(parsing.request?.['extra_args'], Object.keys(variables).length === 0 ? undefined : { reasoning_parser_kwargs: { chat_template_kwargs: variables } })
  }
})

test('calls of earlier answers reach the template with their arguments as an object; what is none is refused', async () => {
  const call = (text: string): JsonObject => ({ id: 'c', type: 'function', function: { name: 'f', arguments: text } })
  const history = (text: string): JsonObject => ({ messages: [{ role: 'user', content: 'q' }, { role: 'assistant', content: null, reasoning: 'r', tool_calls: [call(text)] }, { role: 'tool', tool_call_id: 'c', content: 'a' }] })
  assert.deepEqual((await planned(history('{"a":[1]}'))).input?.messages[1], { role: 'assistant', reasoning_content: 'r', tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: { a: [1] } } }] })
  assert.equal((await planned(history(''))).status, 200)
  for (const text of ['not json', '[1]', '"x"']) {
    const refused = await planned(history(text))
    assert.equal(refused.status, 400)
    assert.match(refused.answer, /`messages\[1\]\.tool_calls\[0\]\.function\.arguments` must be a string that holds a JSON object/)
  }
})
