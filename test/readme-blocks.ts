/** The code blocks of the README and of its page on deployments, by a piece of their text. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from './repo-root.ts'

/** All of them, in order. */
export function readmeBlocks(): readonly string[] {
  return ['README.md', join('docs', 'deployment.md')].flatMap((page) =>
    [...readFileSync(join(repoRoot, page), 'utf8').matchAll(/^```\w*\n([\s\S]*?)^```$/gm)].map(([, text]) => text ?? ''))
}

/** The one block that holds `piece`. Errors: when there is not exactly one. */
export function readmeBlock(piece: string): string {
  const found = readmeBlocks().filter((block) => block.includes(piece))
  if (found.length !== 1) throw new Error(`${found.length} blocks of README and docs/deployment.md hold ${JSON.stringify(piece)}`)
  return found[0] as string
}
