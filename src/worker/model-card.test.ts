/** Goal: a registration makes the card that Dynamo makes, and is refused where Dynamo refuses it. Method: cards recorded from `register_model` of 1.6.1. */
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import type { JsonObject } from '../ports.ts'
import { fixturePath } from '../../test/repo-root.ts'
import { ArgumentError } from './errors.ts'
import { modelCard, modelSlug, type ModelDescription } from './model-card.ts'
import { ModelInput, ModelType, modelTypeText, WorkerType } from './model-kinds.ts'
import type { ModelRuntimeConfig } from './runtime-config.ts'

const recorded = JSON.parse(readFileSync(fixturePath('wire', 'registered-cards.json'), 'utf8')) as Record<string, { card: JsonObject; suffix?: string }>
const folder = await mkdtemp(join(tmpdir(), 'warmpath-card-'))
before(async () => {
  await writeFile(join(folder, 'config.json'), '{"max_position_embeddings":32768}')
  for (const name of ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json']) await writeFile(join(folder, name), '{}')
})
after(() => rm(folder, { recursive: true, force: true }))

const base: ModelDescription = { modelInput: ModelInput.Tokens, modelType: ModelType.Chat | ModelType.Completions, modelPath: folder, modelName: 'tiny', workerType: WorkerType.Aggregated }
const prefill: Partial<ModelDescription> = { workerType: WorkerType.Prefill, modelType: ModelType.Empty, needs: [[WorkerType.Decode]] }
const config = (runtimeConfig: ModelRuntimeConfig): Partial<ModelDescription> => ({ runtimeConfig })
const zone = { topologyDomains: { zone: 'a' }, kvTransferDomain: 'zone' } as const

/** What was registered, by the name of its recorded card. */
const registrations: Readonly<Record<string, Partial<ModelDescription>>> = {
  aggregated: {},
  'prefill, an empty group': { ...prefill, needs: [[]] },
  'prefill, marked': { ...prefill, modelType: ModelType.Prefill },
  'decode without a surface': { workerType: WorkerType.Decode, modelType: ModelType.Empty, needs: [[WorkerType.Prefill]] },
  encode: { workerType: WorkerType.Encode, modelType: ModelType.Empty, needs: [[WorkerType.Prefill, WorkerType.Decode], [WorkerType.Aggregated]] },
  'aggregated with needs': { needs: [[WorkerType.Prefill]] },
  text: { modelInput: ModelInput.Text },
  embedding: { modelType: ModelType.Embedding },
  tensor: { modelInput: ModelInput.Tensor, modelType: ModelType.TensorBased },
  'without assets': { modelPath: '/nonexistent/foo', skipModelAssets: true },
  aliases: { modelAliases: ['a', 'b'] },
  'user data': { userData: { a: 1 } },
  'adapters at once': { maxGpuLoraCount: 4 },
  'topology, required': config({ ...zone, kvTransferEnforcement: 'required' }),
  'topology, preferred': config({ ...zone, kvTransferEnforcement: 'preferred', kvTransferPreferredWeight: 0.5 }),
  'stable routing id': config({ stableRoutingId: 's1' }),
  'source mode': config({ kvEventSourceMode: 'zmq' }),
  'state endpoint': config({ kvStateEndpoint: 'a.b.c' }),
  bootstrap: config({ disaggregatedEndpoint: { bootstrapHost: '10.0.0.5', bootstrapPort: 8998 } }),
  adapter: { modelType: ModelType.Chat, kvCacheBlockSize: 16, loraName: 'My Lora/1', baseModelPath: folder, maxGpuLoraCount: 2 },
  'with taints changed': { modelType: ModelType.Chat, kvCacheBlockSize: 16, maxGpuLoraCount: 2, ...config({ topologyDomains: { zone: 'a' }, taints: [''] }) },
}

test('cards are those of Dynamo, field by field', async (context) => {
  assert.deepEqual(Object.keys(registrations).sort(), Object.keys(recorded).sort(), 'every recorded card is made here')
  for (const [name, more] of Object.entries(registrations)) {
    await context.test(name, async () => {
      const card = { ...await modelCard({ ...base, ...more }) } as Record<string, unknown>
      for (const section of ['model_info', 'tokenizer', 'prompt_formatter', 'gen_config']) if (card[section] !== null && card[section] !== undefined) card[section] = 'file'
      card['source_path'] = card['source_path'] === folder ? 'MODEL' : 'elsewhere'
      assert.deepEqual(card, recorded[name]?.card)
      if (recorded[name]?.suffix !== undefined) assert.equal(modelSlug(more.loraName ?? ''), recorded[name].suffix)
    })
  }
})

/** What is refused: the field that the error names, and part of what it says. */
const refused: readonly (readonly [string, Partial<ModelDescription>, string, RegExp])[] = [
  ['no needs', { ...prefill, needs: [] }, 'needs', /needs is \[\]; a worker of type prefill depends on others; name them, such as \[\[WorkerType.Decode\]\]/],
  ['decode without needs', { workerType: WorkerType.Decode }, 'needs', /needs is not given; .*\[\[WorkerType.Prefill\]\]/],
  ['encode without needs', { workerType: WorkerType.Encode, modelType: ModelType.Empty }, 'needs', /type encode/],
  ['a prefill surface', { ...prefill, modelType: ModelType.Prefill | ModelType.Chat }, 'modelType', /is "Chat \| Prefill"; a prefill worker offers no OpenAI surface/],
  ['half an adapter', { loraName: 'x' }, 'baseModelPath', /loraName goes with it/],
  ['the other half', { baseModelPath: folder }, 'loraName', /baseModelPath goes with it/],
  ['no folder', { modelPath: '/nonexistent/foo' }, 'modelPath', /config\.json/],
  ['no template', { customTemplatePath: '/nonexistent' }, 'customTemplatePath', /no such file/],
  ['a list as data', { userData: [1] as never }, 'userData', /give an object/],
  ['an unknown type', { modelType: 1 << 20 }, 'modelType', /combine members of ModelType/],
  ['a domain that is no key', config({ ...zone, kvTransferDomain: 'rack', kvTransferEnforcement: 'required' }), 'runtimeConfig.kvTransferDomain', /is "rack"; give a key of topologyDomains \(zone\)/],
  ['no such enforcement', config({ ...zone, kvTransferEnforcement: 'x' as never }), 'runtimeConfig.kvTransferEnforcement', /required or preferred/],
  ['a domain alone', config(zone), 'runtimeConfig.kvTransferEnforcement', /kvTransferDomain needs it/],
  ['preferred without weight', config({ ...zone, kvTransferEnforcement: 'preferred' }), 'runtimeConfig.kvTransferPreferredWeight', /not given/],
  ['a weight with required', config({ ...zone, kvTransferEnforcement: 'required', kvTransferPreferredWeight: 0.5 }), 'runtimeConfig.kvTransferPreferredWeight', /preferred only/],
  ['enforcement alone', config({ topologyDomains: { zone: 'a' }, kvTransferEnforcement: 'required' }), 'runtimeConfig.kvTransferDomain', /needs it/],
  ...[-0.5, 2, Number.NaN].map((weight) => [`weight ${weight}`, config({ ...zone, kvTransferEnforcement: 'preferred', kvTransferPreferredWeight: weight }), 'runtimeConfig.kvTransferPreferredWeight', /0 to 1/] as const),
  ...([{ zone: '' }, { '': 'a' }, { ' a': 'b' }, { a: 'b=c' }] as const).map((domains) => [`domains ${JSON.stringify(domains)}`, config({ topologyDomains: domains }), 'topologyDomains', /topologyDomains is/] as const),
  ['no ranks', config({ dataParallelSize: 0 }), 'runtimeConfig.dataParallelSize', /from 1/],
  ['a reserved taint', config({ taints: ['dynamo.topology/zone=a'] }), 'taints', /made from topologyDomains/],
  ['no name', { modelName: '' }, 'modelName', /give a name/],
]

test('what cannot be used is refused; the error names field, value and mend', async () => {
  for (const [name, more, field, message] of refused) {
    await assert.rejects(modelCard({ ...base, ...more }), (error: unknown) => {
      assert.ok(error instanceof ArgumentError, `${name}: ${String(error)}`)
      assert.ok(error.field.endsWith(field), `${name}: ${error.field}`)
      assert.match(error.message, message, name)
      return true
    })
  }
})

test('a name defaults to the path, files may be left out', async () => {
  const { modelPath: _path, modelName: _name, ...bare } = base
  assert.equal((await modelCard({ ...bare, modelPath: folder }))['display_name'], folder)
  const named = await modelCard({ ...bare, modelName: 'Tiny/1', kvCacheBlockSize: 8 })
  assert.deepEqual([named['slug'], named['tokenizer'], named['kv_cache_block_size'], named['source_path']], ['tiny_1', null, 8, 'Tiny/1'])
  await assert.rejects(modelCard(bare), /give a name/)
})

test('types are written in the order of their bits', () => {
  assert.equal(modelTypeText(ModelType.Completions | ModelType.Chat), 'Chat | Completions')
  assert.equal(modelTypeText(ModelType.Empty), '')
})
