/** Tool calls and reasoning: both frontends over one worker that writes what models of each family write. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fixturePath, repoRoot } from '../../test/repo-root.ts'
import { freePort, type Deployment } from '../deployment.ts'
import { harmonyVocabulary } from '../harmony-vocabulary.ts'
import type { Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const script = join(repoRoot, 'interop', 'python', 'parser_corpus.py')

interface Call {
  readonly name: string
  readonly arguments: string
}

interface Answer {
  readonly content: string | null
  readonly reasoning: string | null
  readonly calls: readonly Call[]
  readonly finish: string | null
}

interface Case {
  readonly name: string
  readonly answers: readonly Answer[]
}

/** One model and one file watcher each: a pair of parsers per kind of form. */
const sampled: Readonly<Record<string, readonly string[]>> = {
  hermes: ['one call', 'two calls with text around', 'cut late', 'plain text', 'one at a time'],
  llama3_json: ['one call', 'bare', 'bare list'],
  mistral: ['one call', 'text around', 'special tokens'],
  qwen3_coder: ['everything in the arguments', 'values of the wrong types', 'choice none'],
  deepseek_v3_1: ['two calls', 'bad arguments'],
  deepseek_v4: ['everything in the arguments', 'text around'],
  deepseek_v41: ['everything in the arguments', 'JSON arguments'],
  inkling: ['two calls with text around', 'thought, answer, call'],
  kimi_k2: ['two calls', 'special tokens'],
  kimi_k3: ['everything in the arguments', 'thought, answer, call'],
  muse: ['everything in the arguments', 'thought, answer, call'],
  minimax_m3: ['everything in the arguments', 'two calls with text around'],
  pythonic: ['two calls with text around', 'list and dict'],
  guided: ['hermes+qwen3 required, two behind reasoning', 'hermes+qwen3 named behind reasoning', 'hermes+qwen3 required, text behind reasoning'],
  reasoning_basic: ['qwen3: both tags', 'qwen3: prompt opened it', 'qwen3 with hermes: text, call and text'],
  reasoning_forced: ['deepseek_r1: no start', 'deepseek_r1: thinking false', 'deepseek_r1: json'],
  together: ['kimi_k2+kimi_k25: call in an open thought', 'mistral+mistral: thought and call'],
}

/** gpt-oss: both parsers, and each alone. */
const sampledGptOss: Readonly<Record<string, readonly string[]>> = {
  harmony: [
    'one call', 'everything in the arguments', 'two calls', 'two blocks behind each other', 'cut late', 'blank lines before', 'length', 'one at a time', 'required, in the family\'s form', 'analysis and call', 'analysis and final', 'analysis only',
    'commentary preamble', 'bad arguments', 'call in analysis', 'unknown recipient', 'call and final', 'unicode', 'two analyses', 'two finals', 'preamble and final', 'call, then analysis', 'another channel', 'text between messages', 'spread arguments',
    'thought and call, choice none', 'required JSON, behind a thought', 'named JSON, in an answer', 'a tag in the answer', 'answer cut at its end',
  ],
  harmony_calls: ['text around', 'two calls with text around', 'analysis and call', 'recipient in the role', 'call and final', 'thought and answer, no tools', 'required JSON, bare'],
  harmony_thoughts: ['analysis and call', 'two finals', 'call and answer, no tools', 'recipient in the role', 'required JSON, in an answer'],
}

function sample(sampled: Readonly<Record<string, readonly string[]>>): readonly { readonly family: string; readonly name: string }[] {
  return Object.entries(sampled).flatMap(([family, names]) => {
    const { cases } = JSON.parse(readFileSync(fixturePath('parsers', `${family}.json`), 'utf8')) as { cases: readonly Case[] }
    for (const name of names) assert.ok(cases.some((each) => each.name === name), `${family}/${name} is in the corpus`)
    return names.map((name) => ({ family, name }))
  })
}

/** A run of the recorder on some cases, against one frontend. */
async function recorded(deployment: Deployment, port: number, label: string, cases: readonly { readonly family: string; readonly name: string }[]): Promise<Map<string, readonly Answer[]>> {
  const folder = join(deployment.folder, label)
  mkdirSync(folder)
  const names = cases.map(({ family, name }) => `${family}/${name}`)
  // Not synchronously: the logs of the others are read meanwhile.
  const run = deployment.spawn(`record-${label}`, deployment.dynamo.python, [script, 'sample', `http://127.0.0.1:${port}`, folder, ...names])
  const code = await run.exited
  if (code !== 0) throw new Error(`the recorder ended with ${code}: ${await until('its last words', () => run.log() !== '' && run.log(), 2000)}`)
  const answers = new Map<string, readonly Answer[]>()
  for (const file of readdirSync(folder)) {
    const { family, cases: found } = JSON.parse(readFileSync(join(folder, file), 'utf8')) as { family: string; cases: readonly Case[] }
    for (const each of found) answers.set(`${family}/${each.name}`, each.answers)
  }
  return answers
}

/** Ids are made up; the original numbers some where ours are unique. */
const comparable = ({ content, reasoning, calls, finish }: Answer): unknown => ({ content: content ?? '', reasoning: reasoning ?? '', calls: calls.map(({ name, arguments: given }) => ({ name, given })), finish })

async function besideTheReal(deployment: Deployment, sampled: Readonly<Record<string, readonly string[]>>, env: NodeJS.ProcessEnv = {}): Promise<void> {
  const cases = sample(sampled)
  const model = join(deployment.folder, 'model')
  assert.equal(spawnSync(deployment.dynamo.python, [script, 'model', model]).status, 0)
  const models = spawnSync(deployment.dynamo.python, [script, 'pairs', ...cases.map(({ family, name }) => `${family}/${name}`)], { encoding: 'utf8' }).stdout.trim().split('\n')
  const worker = deployment.spawn('corpus', deployment.dynamo.python, [script, 'worker', model, ...models])
  const [theirs, ours] = [await freePort(), await freePort()]
  deployment.module('real-frontend', 'dynamo.frontend', ['--http-port', theirs, '--router-mode', 'round-robin'], env)
  const frontend = deployment.warmpath('frontend', ['frontend', '--http-port', ours, '--http-host', '127.0.0.1'])
  for (const port of [theirs, ours]) {
    await until('all models are listed', async () => {
      for (const each of [worker, frontend]) if (each.child.exitCode !== null) throw new Error(each.log().slice(-1500))
      try {
        const { data } = (await (await fetch(`http://127.0.0.1:${port}/v1/models`)).json()) as { data: readonly unknown[] }
        return data.length === models.length
      } catch {
        return false
      }
    }, 120_000)
  }
  const real = await recorded(deployment, theirs, 'theirs', cases)
  const mine = await recorded(deployment, ours, 'ours', cases)
  const differences: string[] = []
  for (const [name, answers] of mine) {
    const known = (real.get(name) ?? []).map((answer) => JSON.stringify(comparable(answer)))
    const found = [...new Set(answers.map((answer) => JSON.stringify(comparable(answer))))]
    // One answer, whole and streamed, however the text was cut; the original's may depend on that.
    if (found.length !== 1 || !known.includes(found[0] as string)) differences.push(`${name}\n  ours   ${found.join('\n         ')}\n  theirs ${[...new Set(known)].join('\n         ')}`)
  }
  assert.equal(mine.size, cases.length)
  assert.deepEqual(differences, [])
}

/** The original looks for its vocabulary where a variable says. */
async function gptOssBesideTheReal(deployment: Deployment): Promise<void> {
  const folder = await harmonyVocabulary()
  if (typeof folder !== 'string') throw new Error(`no vocabulary for gpt-oss: ${folder.unavailable}`)
  await besideTheReal(deployment, sampledGptOss, { TIKTOKEN_ENCODINGS_BASE: folder })
}

export const parserScenarios: readonly Scenario[] = [
  { name: 'parsers-beside-the-real', timeoutSeconds: 240, run: (deployment) => besideTheReal(deployment, sampled) },
  { name: 'parsers-gpt-oss', timeoutSeconds: 240, run: gptOssBesideTheReal },
]
