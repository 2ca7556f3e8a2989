/** API keys: hashes in a file, one line each, never the keys themselves. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'

/** A key as the file knows it. */
interface KeyEntry {
  readonly name: string
  readonly hash: Buffer
}

/** Most lines of a file. */
export const apiKeysMax = 100_000
/** Longest key that is looked at. */
const keyLengthMax = 512
const keyBytes = 32
const lineForm = /^([^\s:]{1,128}):sha256:([0-9a-f]{64})$/i

/** A file of keys that cannot be used; the message names the line. */
export class ApiKeyFileError extends Error {}

const hashOf = (key: string): Buffer => createHash('sha256').update(key, 'utf8').digest()

/** The line of a key in the file: `NAME:sha256:HEX`. A key has 256 random bits, so that one plain hash of it cannot be searched through. */
export const apiKeyLine = (name: string, key: string): string => `${name}:sha256:${hashOf(key).toString('hex')}`

/** A new key. */
export const createApiKey = (): string => `wp-${randomBytes(keyBytes).toString('base64url')}`

/** Names that a line may have. */
export const isApiKeyName = (name: string): boolean => lineForm.test(`${name}:sha256:${'0'.repeat(64)}`)

/** The keys of one file. Cost: a check is one hash and one comparison per key, each of the same length in time. */
export class ApiKeys {
  readonly #entries: readonly KeyEntry[]

  /** Blank lines and those that begin with # are passed over. Errors: `ApiKeyFileError` for a line of another form, a name twice, or no key at all. */
  constructor(text: string) {
    const entries = new Map<string, KeyEntry>()
    text.split(/\r?\n/).forEach((raw, index) => {
      const line = raw.trim()
      if (line === '' || line.startsWith('#')) return
      const found = lineForm.exec(line)
      const [, name, hex] = found ?? []
      if (name === undefined || hex === undefined) throw new ApiKeyFileError(`line ${index + 1} is not NAME:sha256:HEX; make one with warmpath api-key NAME`)
      if (entries.has(name)) throw new ApiKeyFileError(`line ${index + 1}: the name ${JSON.stringify(name)} stands there twice`)
      entries.set(name, { name, hash: Buffer.from(hex, 'hex') })
      if (entries.size > apiKeysMax) throw new ApiKeyFileError(`it has more than ${apiKeysMax} keys`)
    })
    if (entries.size === 0) throw new ApiKeyFileError('it has no keys; make one with warmpath api-key NAME')
    this.#entries = [...entries.values()]
  }

  get size(): number {
    return this.#entries.length
  }

  /** Name of the key; undefined when it is none of these. Takes as long whichever it is. */
  nameOf(key: string): string | undefined {
    if (key.length > keyLengthMax) return undefined
    const hash = hashOf(key)
    let name: string | undefined
    for (const entry of this.#entries) if (timingSafeEqual(entry.hash, hash)) name = entry.name
    return name
  }
}
