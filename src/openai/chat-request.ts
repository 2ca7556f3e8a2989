/** A chat request: from its body to a plan. */
import type { StopSignal } from '../ports.ts'
import { needsSpecialTokens, outputParserMaker } from '../parsers/create-output-parser.ts'
import type { ParserNames } from '../parsers/output-parser.ts'
import type { ServedModel } from './catalog.ts'
import { readTemplateOptions, renderPrompt } from './chat-prompt.ts'
import { readExtension } from './extension.ts'
import type { Fields } from './fields.ts'
import { checkContextLength, checkNotEmpty, isQueryOnly, preprocessedRequest, type GenerationPlan } from './generation-plan.ts'
import { readMessages, withoutInlineMedia } from './messages.ts'
import {
  maxTokensRange, outputOptions, readGuidedDecoding, readSampling, readStop, readStreamOptions, refuseUnknownParameters, responseSchema,
} from './parameters.ts'
import { encodePrompt } from './prompt-encoding.ts'
import type { HeaderHints } from './request-headers.ts'
import { readTools } from './tools.ts'

export interface RequestContext {
  readonly model: ServedModel
  readonly hints: HeaderHints
  /** Unknown parameters are passed over. */
  readonly ignoreUnknown: boolean
  readonly signal: StopSignal
  /** Milliseconds that the template and the tokenizer took. */
  onPrepared?(templateMs: number, tokenizeMs: number): void
  readonly nowMs: () => number
}

const noParsers: ParserNames = { toolCall: null, reasoning: null }

/** Errors: 400 for everything that the table of checks refuses, and for what the template refuses. */
export async function planChat(body: Fields, context: RequestContext): Promise<GenerationPlan> {
  const { model, hints } = context
  const messages = readMessages(body)
  if (!context.ignoreUnknown) refuseUnknownParameters(body, 'chat')
  const stream = body.boolean('stream') ?? false
  const streamOptions = readStreamOptions(body, stream)
  const sampling = readSampling(body)
  const tools = readTools(body)
  const format = responseSchema(body)
  sampling.options['guided_decoding'] = readGuidedDecoding(body, tools.schema ?? format)
  const maxTokens = body.integer('max_tokens', maxTokensRange)
  const extension = readExtension(body, model.text.vocabularySize)
  const stop = readStop(body, {
    maxTokens: body.integer('max_completion_tokens', maxTokensRange) ?? maxTokens,
    maxThinkingTokens: extension.maxThinkingTokens,
    eosTokenIds: model.text.eosTokenIds,
    vocabularySize: model.text.vocabularySize,
  })
  const topLogprobs = body.integer('top_logprobs', { min: 0, max: 20 })
  const logprobs = body.boolean('logprobs') === true ? (topLogprobs ?? 1) : undefined
  const keepsSpecial = model.parsers !== undefined && needsSpecialTokens(model.parsers)
  const options = outputOptions(body, logprobs, undefined, keepsSpecial)
  const template = readTemplateOptions(body)
  const parsesReasoning = (model.parsers?.reasoning ?? null) !== null

  const startMs = context.nowMs()
  const text = renderPrompt(model, messages.list, tools.choice === 'none' && model.showsUnusedTools !== true ? undefined : tools.tools, template)
  const renderedMs = context.nowMs()
  const tokenIds = extension.tokenData ?? (await encodePrompt(model, text, 'messages', context.signal))
  context.onPrepared?.(renderedMs - startMs, context.nowMs() - renderedMs)
  checkNotEmpty(tokenIds, 'messages')
  checkContextLength(model, tokenIds.length, 'messages')

  const request = preprocessedRequest(model, tokenIds, {
    body, hints, extension, stop, sampling, outputOptions: options, inputTrigger: messages.inputTrigger,
    ...(messages.media === undefined ? {} : { media: messages.media }),
    extraArgs: {
      ...(messages.media === undefined ? {} : { messages: withoutInlineMedia(messages.list), formatted_prompt: text }),
      // Engines that parse reasoning themselves go by the same words.
      ...(parsesReasoning && Object.keys(template.variables).length > 0 ? { reasoning_parser_kwargs: { chat_template_kwargs: template.variables } } : {}),
    },
  })
  return {
    kind: 'chat', model, stream, streamOptions, n: sampling.n, stop,
    logprobs: logprobs === undefined ? undefined : (topLogprobs ?? 0),
    tokensAsIds: body.boolean('return_tokens_as_token_ids') ?? false,
    skipSpecialTokens: body.boolean('skip_special_tokens') ?? !keepsSpecial,
    includeStopString: sampling.options['include_stop_str_in_output'] === true,
    echo: false,
    createParser: outputParserMaker(model.parsers ?? noParsers, {
      tools: tools.definitions, toolChoice: tools.choice, singleCall: body.boolean('parallel_tool_calls') === false,
      guided: format !== undefined, prompt: text, templateArguments: template.variables,
    }),
    countsReasoning: parsesReasoning && template.variables['thinking'] !== false, extension, queryOnly: isQueryOnly(extension), prompts: [{ tokenIds, text }], requests: [request],
  }
}
