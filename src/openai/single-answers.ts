/** Endpoints with one answer: embeddings, and counts of tokens. */
import { chatOfMessages, type AnthropicOptions } from './anthropic/request.ts'
import { planEmbeddings, runEmbeddings } from './embeddings.ts'
import type { SingleAnswer } from './generate-handler.ts'
import { chatOfResponses } from './responses/request.ts'
import { countPromptTokens } from './token-count.ts'

export const embeddingsAnswer: SingleAnswer = {
  name: 'embeddings', surface: 'embeddings',
  answer: async (body, model, call, meter) => {
    const plan = await planEmbeddings(body, model, call.signal)
    const { body: answer, promptTokens } = await runEmbeddings(plan, call)
    meter.inputTokens(promptTokens)
    return answer
  },
}

export const responseTokens: SingleAnswer = {
  name: null, surface: 'chat',
  answer: async (body, model, call) => ({ object: 'response.input_tokens', input_tokens: await countPromptTokens(chatOfResponses(body), model, call.signal) }),
}

export const messageTokens = (options: AnthropicOptions): SingleAnswer => ({
  name: null, surface: 'chat',
  answer: async (body, model, call) => ({ input_tokens: await countPromptTokens(chatOfMessages(body, model, options), model, call.signal) }),
})
