import assert from 'node:assert/strict'
import { test } from 'node:test'
import { conditionalDisaggOf, sessionAffinityOf } from './disagg-rules.ts'
import { parseCommand, type ParsedConfig } from './parse-command.ts'

const target = ['--endpoint', 'dynamo.backend.generate']
const twoStages = [...target, '--prefill-endpoint', 'dynamo.prefill.generate']
const noFile = (): Uint8Array => new Uint8Array()

async function parse<Command extends 'router' | 'frontend'>(command: Command, argv: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<ParsedConfig<Command>> {
  const parsed = await parseCommand(command, argv, env, noFile)
  assert.ok(parsed.kind === 'config')
  return parsed
}
const refuses = (command: 'router' | 'frontend', argv: readonly string[], message: RegExp): Promise<void> =>
  assert.rejects(parse(command, argv), (error: Error) => {
    assert.match(error.message, message)
    return true
  })

test('conditional disaggregation: rules of both commands', async () => {
  const rules = '{"policy":"isl_or_load","prefill_busy_threshold":0.5,"decode_busy_threshold":0.9}'
  for (const [command, argv] of [['frontend', []], ['router', twoStages]] as const) {
    const { values } = await parse(command, [...argv, '--router-conditional-disagg', '--router-conditional-disagg-config', rules])
    assert.deepEqual(conditionalDisaggOf(values), { policy: 'isl_or_load', effIslThreshold: 2048, effIslRatioThreshold: 0.7, prefillBusyThreshold: 0.5, decodeBusyThreshold: 0.9 })
    assert.equal(conditionalDisaggOf((await parse(command, argv.length === 0 ? [] : target)).values), null)
  }
  const { values } = await parse('frontend', [], { DYN_ROUTER_CONDITIONAL_DISAGG: '1', DYN_ROUTER_CONDITIONAL_DISAGG_CONFIG: '{"eff_isl_threshold":64}' })
  assert.equal(conditionalDisaggOf(values)?.effIslThreshold, 64)
})

test('conditional disaggregation: what does not go together ends the start', async () => {
  await refuses('router', [...target, '--router-conditional-disagg'], /^--router-conditional-disagg: a router of one pool .* give --prefill-endpoint, or set it on the frontend$/)
  await refuses('frontend', ['--router-conditional-disagg', '--router-mode', 'round-robin'], /needs --router-mode kv/)
  await refuses('frontend', ['--router-conditional-disagg-config', '{}'], /^--router-conditional-disagg-config needs --router-conditional-disagg/)
  await refuses('frontend', ['--router-conditional-disagg', '--router-conditional-disagg-config', '{"policy":"prefill_load"}'], /policy prefill_load needs prefill_busy_threshold/)
  await refuses('frontend', ['--router-conditional-disagg', '--router-conditional-disagg-config', '{"bogus":1}'], /--router-conditional-disagg-config: has an unknown field "bogus"/)
})

test('session affinity and the bound of migration', async () => {
  const frontend = await parse('frontend', ['--router-session-affinity-ttl-secs', '60', '--router-session-affinity-mode', 'soft', '--migration-max-seq-len', '4096'])
  assert.deepEqual(sessionAffinityOf(frontend.values), { ttlMs: 60_000, mode: 'soft' })
  assert.equal(frontend.values.migrationLengthMax, 4096)
  const router = await parse('router', target, { DYN_ROUTER_SESSION_AFFINITY_TTL_SECS: '5' })
  assert.deepEqual(sessionAffinityOf(router.values), { ttlMs: 5000, mode: 'hard' })
  assert.equal(sessionAffinityOf((await parse('router', target)).values), null)
  for (const ttl of ['0', '31536001', '1.5']) await refuses('frontend', ['--router-session-affinity-ttl-secs', ttl], /from 1 to 31536000/)
  await refuses('frontend', ['--migration-max-seq-len', '0'], /from 1 to 4294967295/)
})
