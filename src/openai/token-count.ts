/** How many tokens the prompt of a request has: counted with the model's own template and tokenizer, without running it. */
import type { JsonObject, StopSignal } from '../ports.ts'
import type { ServedModel } from './catalog.ts'
import { readTemplateOptions, renderPrompt } from './chat-prompt.ts'
import { Fields } from './fields.ts'
import { readMessages } from './messages.ts'
import { encodePrompt } from './prompt-encoding.ts'
import { readTools } from './tools.ts'

/** `chat`: a chat request, as the other APIs are turned into. Errors: 400 as for the request itself. */
export async function countPromptTokens(chat: JsonObject, model: ServedModel, signal: StopSignal): Promise<number> {
  const body = new Fields(chat)
  const messages = readMessages(body)
  const { tools } = readTools(body)
  const text = renderPrompt(model, messages.list, tools, readTemplateOptions(body))
  return (await encodePrompt(model, text, 'messages', signal)).length
}
