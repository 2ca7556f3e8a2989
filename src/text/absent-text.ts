/** The text side of a model whose workers tokenize themselves: there is none here. */
import { TextError } from './text-error.ts'
import type { TextModel } from './text-model.ts'

const absent = (): never => {
  throw new TextError('files', 'the workers of this model tokenize themselves; nothing is tokenized here')
}

export const absentText: TextModel = {
  eosTokenIds: [], contextLength: null, vocabularySize: 4_294_967_295, hasChatTemplate: false,
  renderChat: absent, decoder: absent, tokenText: absent, tokenBytes: absent,
  encode: async () => absent(),
  counters: () => ({ engine: 'pure', encodes: 0, segmentHits: 0, segmentMisses: 0, segmentEvictions: 0, refused: 0 }),
  close: () => Promise.resolve(),
}
