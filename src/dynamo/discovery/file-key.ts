/**
 * The file store's names: a whole bucket-relative key as one file name.
 *
 * Every UTF-8 byte outside `[A-Za-z0-9]` becomes `%XX` in upper case, so also `/`, `_`, `-` and `.`.
 */

const hex = (byte: number): string => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`

const isPlain = (byte: number): boolean =>
  (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a)

/** The file name of a key. */
export function encodeFileKey(key: string): string {
  let name = ''
  for (const byte of Buffer.from(key, 'utf8')) name += isPlain(byte) ? String.fromCharCode(byte) : hex(byte)
  return name
}

/** The key of a file name, or null when the name is no percent-encoded UTF-8. Decodes once: event keys keep their own encoding. */
export function decodeFileKey(name: string): string | null {
  try {
    return decodeURIComponent(name)
  } catch {
    return null
  }
}
