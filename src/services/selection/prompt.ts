/** The prompt of a call, in any of its forms, made hashes. Source: router-algorithm 16.1. */
import { hashCount, type HashList } from '../../model/hash-list.ts'
import type { BlockMmInfo } from '../../model/kv-event.ts'
import type { HashedPrompt } from '../../model/routing-request.ts'
import type { JsonObject, Random } from '../../ports.ts'
import type { RouterSettings } from '../../router/contract.ts'
import { PromptHasher } from '../../router/prompt-hasher.ts'
import { BodyError, booleanOf, countOf, hashesOf, listOf, maybe, objectOf, required, textOf, tokensOf, u64Of, withDefault } from '../body-fields.ts'

type MmInfos = readonly (BlockMmInfo | null)[]

/** A prompt as a call gives it. */
export interface PromptFields {
  /** Those that are routed by: of `mm_routing_info` when it has some; null: hashes are given instead. */
  readonly tokens: Uint32Array | null
  readonly mmInfos: MmInfos | null
  readonly blockHashes: HashList | null
  readonly sequenceHashes: HashList | null
  readonly islTokens: number | null
  readonly loraName: string | null
  readonly cacheSalt: string | null
  readonly isEagle: boolean | null
}

/** Errors: `BodyError`. */
export function readPrompt(body: JsonObject): PromptFields {
  const tokens = maybe(body, 'token_ids', tokensOf)
  const mmInfos = maybe(body, 'block_mm_infos', mmInfosOf)
  const routing = maybe(body, 'mm_routing_info', (value, field) => {
    const info = objectOf(value, field)
    return { tokens: required(info, 'routing_token_ids', tokensOf, field), mmInfos: withDefault(info, 'block_mm_infos', mmInfosOf, [], field) }
  })
  const chosen = routing !== null && routing.tokens.length > 0 ? routing : { tokens, mmInfos }
  return {
    ...chosen,
    blockHashes: maybe(body, 'block_hashes', hashesOf), sequenceHashes: maybe(body, 'sequence_hashes', hashesOf),
    islTokens: maybe(body, 'isl_tokens', countOf), loraName: maybe(body, 'lora_name', textOf), cacheSalt: maybe(body, 'cache_salt', textOf),
    isEagle: maybe(body, 'is_eagle', booleanOf),
  }
}

function mmInfosOf(value: unknown, field: string): MmInfos {
  return listOf(value, field).map((item, index) => {
    if (item === null) return null
    const here = `${field}[${index}]`
    const info = objectOf(item, here)
    const mmObjects = required(info, 'mm_objects', listOf, here).map((each, at) => {
      const place = `${here}.mm_objects[${at}]`
      const object = objectOf(each, place)
      const offsets = required(object, 'offsets', listOf, place).map((range, pairAt): [number, number] => {
        const pair = listOf(range, `${place}.offsets[${pairAt}]`)
        return [countOf(pair[0], `${place}.offsets[${pairAt}][0]`), countOf(pair[1], `${place}.offsets[${pairAt}][1]`)]
      })
      return { mmHash: required(object, 'mm_hash', u64Of, place), offsets }
    })
    return { mmObjects }
  })
}

/** Hashes the prompts of one partition. */
export class PartitionHasher {
  readonly #settings: RouterSettings
  readonly #model: string
  readonly #random: Random
  readonly #hashers = new Map<boolean, PromptHasher>()

  constructor(settings: RouterSettings, model: string, random: Random) {
    this.#settings = settings
    this.#model = model
    this.#random = random
  }

  /** For a selection. Errors: `BodyError` 400 where hashes are given in parts, or do not fit each other. */
  forSelection(prompt: PromptFields, assumeKvReuse: boolean | undefined): HashedPrompt {
    if (prompt.tokens !== null) return this.#ofTokens(prompt, prompt.tokens, assumeKvReuse)
    return this.#ofHashes(prompt)
  }

  /** For a booking that names its worker: local hashes may be left out. Errors: `BodyError` 400. */
  forReservation(prompt: PromptFields, assumeKvReuse: boolean | undefined): { readonly prompt: HashedPrompt; readonly hasLocal: boolean } {
    if (prompt.tokens !== null) return { prompt: this.#ofTokens(prompt, prompt.tokens, assumeKvReuse), hasLocal: true }
    const tracking = prompt.sequenceHashes ?? missing('sequence_hashes')
    const promptTokens = prompt.islTokens ?? missing('isl_tokens')
    const hasLocal = prompt.blockHashes !== null
    return { prompt: hasLocal ? { ...this.#ofHashes(prompt), promptTokens } : { local: new Uint32Array(0), tracking, promptTokens }, hasLocal }
  }

  /** Local hashes for a look-up. Errors: `BodyError` 400. */
  local(prompt: PromptFields): HashList {
    return prompt.tokens === null ? this.#ofHashes(prompt).local : this.#hasher(prompt).local(queryOf(prompt, prompt.tokens))
  }

  #ofTokens(prompt: PromptFields, tokens: Uint32Array, assumeKvReuse: boolean | undefined): HashedPrompt {
    const hasher = this.#hasher(prompt)
    const query = queryOf(prompt, tokens)
    const local = hasher.local(query)
    const shares = assumeKvReuse ?? this.#settings.assumeKvReuse
    const tracking = shares ? hasher.tracking(query, this.#model, local) : hasher.unshared(hashCount(local), this.#random)
    return { local, tracking, promptTokens: tokens.length }
  }

  #ofHashes(prompt: PromptFields): HashedPrompt {
    const local = prompt.blockHashes ?? missing('block_hashes')
    const tracking = prompt.sequenceHashes ?? missing('sequence_hashes')
    const promptTokens = prompt.islTokens ?? missing('isl_tokens')
    if (promptTokens === 0) throw new BodyError(400, 'isl_tokens must be greater than 0')
    if (local.length !== tracking.length) {
      throw new BodyError(400, `block_hashes length ${hashCount(local)} must match sequence_hashes length ${hashCount(tracking)}`)
    }
    return { local, tracking, promptTokens }
  }

  #hasher({ isEagle }: PromptFields): PromptHasher {
    const eagle = isEagle ?? this.#settings.isEagle
    let hasher = this.#hashers.get(eagle)
    if (hasher === undefined) this.#hashers.set(eagle, (hasher = new PromptHasher({ ...this.#settings, isEagle: eagle })))
    return hasher
  }
}

const queryOf = ({ loraName, cacheSalt, mmInfos }: PromptFields, tokens: Uint32Array) => ({
  tokens,
  ...(loraName === null ? {} : { loraName }), ...(cacheSalt === null ? {} : { cacheNamespace: cacheSalt }), ...(mmInfos === null ? {} : { blockMmInfos: mmInfos }),
})

function missing(field: string): never {
  throw new BodyError(400, `${field} is required without token_ids`)
}

