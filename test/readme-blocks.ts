/** The code blocks of the README, by a piece of their text. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from './repo-root.ts'

/** All of them, in order. */
export function readmeBlocks(): readonly string[] {
  return [...readFileSync(join(repoRoot, 'README.md'), 'utf8').matchAll(/^```\w*\n([\s\S]*?)^```$/gm)].map(([, text]) => text ?? '')
}

/** The one block that holds `piece`. Errors: when there is not exactly one. */
export function readmeBlock(piece: string): string {
  const found = readmeBlocks().filter((block) => block.includes(piece))
  if (found.length !== 1) throw new Error(`${found.length} blocks of the README hold ${JSON.stringify(piece)}`)
  return found[0] as string
}
