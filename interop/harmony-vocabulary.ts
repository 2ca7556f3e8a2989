/** The vocabulary that Dynamo's frontend reads gpt-oss with, made from the ranks in an npm package: the original downloads it when it is first needed. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { repoRoot } from '../test/repo-root.ts'

/** Where the ranks stand, as lines of `! OFFSET TOKEN…` with tokens in base64. */
const source = 'js-tiktoken@1.0.21'
const ranks = 'package/dist/ranks/o200k_base.js'
/** Of the file as the original expects it: a line of `TOKEN RANK` each. */
const sha256 = '446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d'

const digest = (text: string | Buffer): string => createHash('sha256').update(text).digest('hex')

/** A folder for `TIKTOKEN_ENCODINGS_BASE`, made once; or why there is none. */
export async function harmonyVocabulary(): Promise<string | { readonly unavailable: string }> {
  const folder = join(repoRoot, '.venv', 'vocabulary')
  const file = join(folder, 'o200k_base.tiktoken')
  if (existsSync(file) && digest(readFileSync(file)) === sha256) return folder
  const work = mkdtempSync(join(tmpdir(), 'warmpath-vocabulary-'))
  try {
    const text = await vocabularyIn(work)
    if (typeof text !== 'string') return text
    if (digest(text) !== sha256) return { unavailable: `the ranks of ${source} do not give the vocabulary with the checksum ${sha256}` }
    mkdirSync(folder, { recursive: true })
    writeFileSync(`${file}.new`, text)
    renameSync(`${file}.new`, file)
    return folder
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

async function vocabularyIn(work: string): Promise<string | { readonly unavailable: string }> {
  for (const [command, ...args] of [['npm', 'pack', '--silent', '--pack-destination', '.', source], ['tar', '-xzf', `${source.replace('@', '-')}.tgz`, ranks]] as const) {
    const child = spawnSync(command, args, { cwd: work, encoding: 'utf8', timeout: 120_000 })
    if (child.status !== 0) return { unavailable: `${command} ${args.join(' ')}: ${child.error?.message ?? child.stderr.trim().split('\n').slice(-2).join(' ')}` }
  }
  // Outside of a package Node would take it for CommonJS.
  renameSync(join(work, ranks), join(work, 'ranks.mjs'))
  const { default: found } = (await import(pathToFileURL(join(work, 'ranks.mjs')).href)) as { default: { bpe_ranks: string } }
  const lines = found.bpe_ranks.split('\n').filter(Boolean).flatMap((line) => {
    const [, offset, ...tokens] = line.split(' ')
    return tokens.map((token, index) => ({ rank: Number(offset) + index, token }))
  })
  return lines.sort((left, right) => left.rank - right.rank).map(({ rank, token }) => `${token} ${rank}\n`).join('')
}
