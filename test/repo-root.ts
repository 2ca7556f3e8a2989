import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

function findRoot(from: string): string {
  let folder = from
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder)
    if (parent === folder) throw new Error(`no package.json above ${from}`)
    folder = parent
  }
  return folder
}

/** The repository's folder, whatever folder the compiled test lies in. */
export const repoRoot = findRoot(dirname(fileURLToPath(import.meta.url)))

/** The absolute path of a file under `fixtures/`. */
export const fixturePath = (...parts: string[]): string => join(repoRoot, 'fixtures', ...parts)
