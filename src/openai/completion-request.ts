/** A completions request: from its body to a plan, one worker request per prompt. */
import { invalidField } from './api-error.ts'
import type { RequestContext } from './chat-request.ts'
import { readExtension } from './extension.ts'
import type { Fields } from './fields.ts'
import { checkContextLength, checkNotEmpty, isQueryOnly, preprocessedRequest, type GenerationPlan, type Prompt } from './generation-plan.ts'
import {
  maxTokensRange, outputOptions, readGuidedDecoding, readSampling, readStop, readStreamOptions, refuseUnknownParameters, responseSchema,
} from './parameters.ts'
import { encodePrompt } from './prompt-encoding.ts'
import { readTextInputs, type TextInput } from './text-inputs.ts'

/** Prompts of one request at most; each is a request of its own to the workers. */
export const promptsMax = 512

/** Errors: 400 for everything that the table of checks refuses. */
export async function planCompletion(body: Fields, context: RequestContext): Promise<GenerationPlan> {
  const { model, hints } = context
  const given = readTextInputs(body, 'prompt', promptsMax, model.text.vocabularySize)
  if (!context.ignoreUnknown) refuseUnknownParameters(body, 'completion')
  const stream = body.boolean('stream') ?? false
  const streamOptions = readStreamOptions(body, stream)
  const sampling = readSampling(body)
  sampling.options['guided_decoding'] = readGuidedDecoding(body, responseSchema(body))
  const extension = readExtension(body, model.text.vocabularySize)
  const stop = readStop(body, {
    maxTokens: body.integer('max_tokens', maxTokensRange),
    maxThinkingTokens: extension.maxThinkingTokens,
    eosTokenIds: model.text.eosTokenIds,
    vocabularySize: model.text.vocabularySize,
  })
  if ((body.text('suffix') ?? '') !== '') throw invalidField('suffix', '`suffix` is not supported; leave it out')
  const logprobs = body.integer('logprobs', { min: 0, max: 5 })
  const echo = body.boolean('echo') ?? false
  const options = outputOptions(body, logprobs, echo ? 1 : undefined)

  const startMs = context.nowMs()
  const prompts = extension.tokenData === undefined
    ? await encodeAll(given, context)
    : [{ tokenIds: extension.tokenData, text: undefined }]
  context.onPrepared?.(0, context.nowMs() - startMs)
  for (const prompt of prompts) {
    checkNotEmpty(prompt.tokenIds, 'prompt')
    checkContextLength(model, prompt.tokenIds.length, 'prompt')
  }
  const parts = { body, hints, extension, stop, sampling, outputOptions: options, inputTrigger: 'other' }
  return {
    kind: 'completion', model, stream, streamOptions, n: sampling.n, stop, logprobs,
    tokensAsIds: body.boolean('return_tokens_as_token_ids') ?? false,
    skipSpecialTokens: body.boolean('skip_special_tokens') ?? true,
    includeStopString: sampling.options['include_stop_str_in_output'] === true,
    echo, extension, queryOnly: isQueryOnly(extension), prompts,
    requests: prompts.map((prompt) => preprocessedRequest(model, prompt.tokenIds, parts)),
  }
}

const encodeAll = (given: readonly TextInput[], { model, signal }: RequestContext): Promise<Prompt[]> =>
  Promise.all(given.map(async (prompt) => {
    if (typeof prompt !== 'string') return { tokenIds: prompt, text: undefined }
    return { tokenIds: await encodePrompt(model, prompt, 'prompt', signal), text: prompt }
  }))
