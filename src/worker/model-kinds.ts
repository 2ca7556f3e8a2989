/** What a model takes, what it offers, and which part of the work a worker does: the words of a model card. */

/** What requests carry. A frontend makes tokens of texts for `Tokens`. */
export const ModelInput = { Text: 'Text', Tokens: 'Tokens', Tensor: 'Tensor' } as const
export type ModelInput = (typeof ModelInput)[keyof typeof ModelInput]

/** OpenAI surfaces, to be combined with `|`. `Empty`: none, as prefill and encode workers have. `Prefill`: how prefill workers were marked before 1.3. */
export const ModelType = {
  Empty: 0,
  Chat: 1,
  Completions: 2,
  Embedding: 4,
  TensorBased: 8,
  Prefill: 16,
  Images: 32,
  Audios: 64,
  Videos: 128,
  Realtime: 256,
  Classify: 512,
  Pooling: 1024,
  Rerank: 2048,
} as const
/** A combination of `ModelType` members. */
export type ModelType = number

/** All bits that have a name. */
export const modelTypeBits = Object.values(ModelType).reduce<number>((all, bit) => all | bit, 0)

/** The form of a card: `Chat | Completions`; empty for none. */
export const modelTypeText = (type: ModelType): string =>
  Object.entries(ModelType).filter(([, bit]) => bit !== 0 && (type & bit) !== 0).map(([name]) => name).join(' | ')

/** The stage of a worker. A worker has one; what it depends on stands in `needs`. */
export const WorkerType = { Prefill: 'prefill', Decode: 'decode', Encode: 'encode', Aggregated: 'aggregated' } as const
export type WorkerType = (typeof WorkerType)[keyof typeof WorkerType]
