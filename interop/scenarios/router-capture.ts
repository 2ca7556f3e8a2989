/** A recorded run of Dynamo's standalone router over its mocker, played again with ours: the client, which is Dynamo's, must have the same answers. */
import { readFileSync } from 'node:fs'
import { fixturePath } from '../../test/repo-root.ts'
import { until } from '../../test/until.ts'
import { differences } from '../captures/compare.ts'
import type { Deployment } from '../deployment.ts'
import { routerEndpoint, type OverlapAnswer, type Scenario } from '../scenario.ts'

interface RecordedCall {
  readonly name: string
  readonly endpoint: string
  /** `<prompt>` and `<prompt twice>` stand for tokens. */
  readonly payload: unknown
  readonly outputs: readonly unknown[]
}

const prompt = Array.from({ length: 96 }, (_, index) => (index * 7) % 500)
const tokens: Readonly<Record<string, readonly number[]>> = { '<prompt>': prompt, '<prompt twice>': [...prompt, ...prompt] }

function expand(value: unknown): unknown {
  if (typeof value === 'string') return tokens[value] ?? value
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, expand(item)]))
}

/** Workers are numbered as they are met, over all calls. */
class Names {
  readonly #workers = new Map<string, string>()

  value(name: string, value: unknown): unknown {
    if (/(?:^|_)worker_id$|^best$/.test(name) && (typeof value === 'bigint' || typeof value === 'number')) return this.#worker(`${value}`)
    if (name.endsWith('_ms') || name === 'kv_hit_rate') return '<number>'
    if (name === 'token_ids' && Array.isArray(value)) return value.map(() => '<token>')
    if (name === 'workers') return (value as OverlapAnswer['workers']).toSorted((left, right) => right.device_blocks - left.device_blocks).map((row) => this.value('', row))
    if (Array.isArray(value)) return value.map((item) => this.value('', item))
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null).map(([key, item]) => [key, this.value(key, item)]))
  }

  #worker(id: string): string {
    const name = this.#workers.get(id) ?? `<worker ${this.#workers.size + 1}>`
    this.#workers.set(id, name)
    return name
  }
}

async function standaloneRouter(deployment: Deployment): Promise<void> {
  const { workers, calls } = JSON.parse(readFileSync(fixturePath('behaviour', 'router-mocker.json'), 'utf8')) as { readonly workers: number; readonly calls: readonly RecordedCall[] }
  deployment.mocker('mock', ['--num-workers', workers])
  await deployment.registered('dynamo/backend/generate', workers, undefined, 'mdc')
  await deployment.router(['--endpoint', 'dynamo.backend.generate', '--router-block-size', 16])
  const driver = await deployment.driver()
  const scores = async (): Promise<OverlapAnswer> => (await driver.call(routerEndpoint.overlapScores, { token_ids: prompt })).outputs[0] as OverlapAnswer
  await until('the router knows the workers', async () => (await scores()).workers.length === workers)
  const names = new Names()
  const wrong: string[] = []
  for (const { name, endpoint, payload, outputs } of calls) {
    if (name === 'overlap') await until('the index follows the worker', async () => (await scores()).workers.some(({ device_blocks: blocks }) => blocks === 6))
    const answer = await driver.call(endpoint, expand(payload))
    const ours = answer.error ?? answer.outputs.map((output) => names.value(name === 'best' ? 'best' : '', output))
    wrong.push(...differences(name, outputs, ours).map(({ path, recorded, ours: own }) => `${path}: recorded ${JSON.stringify(recorded)}, ours ${JSON.stringify(own)}`))
  }
  if (wrong.length > 0) throw new Error(`${wrong.length} differences to the recording (call, output, field)\n${wrong.join('\n')}`)
}

export const routerCaptureScenarios: readonly Scenario[] = [{ name: 'captures-mocker-standalone-router', run: standaloneRouter }]
