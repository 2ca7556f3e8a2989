/** The version of this package, read from its package.json. */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export function packageVersion(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  for (;;) {
    const version = versionIn(folder)
    if (version !== null) return version
    const parent = dirname(folder)
    if (parent === folder) throw new Error('no package.json of warmpath above its code')
    folder = parent
  }
}

function versionIn(folder: string): string | null {
  try {
    const content = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { readonly name?: unknown; readonly version?: unknown }
    return content.name === 'warmpath' && typeof content.version === 'string' ? content.version : null
  } catch {
    return null
  }
}
