/** Options of the simulated workers: `warmpath start` and `warmpath worker`. */
import { booleanOption, endpointWithDefault, integerOption, maybeText, numberOption, textOption } from '../option.ts'
import { configFileOption } from './router-own.ts'

const own = { origin: 'warmpath' as const, since: 'Warmpath 0.1' }
const engine = 'Simulated engine'
const named = (name: string) => ({ ...own, name, env: [`WARMPATH_SIM_${name.toUpperCase().replaceAll('-', '_')}`] })

export const engineOptions = {
  modelName: textOption('simulated', { ...named('model-name'), section: engine, help: 'Model name that the workers announce.' }),
  blockSize: integerOption(16, { ...named('block-size'), minimum: 1, maximum: 65536, unit: 'tokens', section: engine, help: 'Tokens per KV cache block.' }),
  cacheBlocks: integerOption(4096, { ...named('cache-blocks'), minimum: 1, unit: 'blocks', section: engine, help: 'KV cache of one rank.' }),
  dpSize: integerOption(1, { ...named('dp-size'), minimum: 1, maximum: 256, unit: 'ranks', section: engine, help: 'Data-parallel ranks of one worker.' }),
  maxNumSeqs: integerOption(64, { ...named('max-num-seqs'), minimum: 1, unit: 'requests', section: engine, help: 'Most requests that a rank runs at once.' }),
  maxNumBatchedTokens: integerOption(8192, { ...named('max-num-batched-tokens'), minimum: 1, unit: 'tokens', section: engine, help: 'Most prompt tokens of one step.' }),
  prefillMsPerToken: numberOption(0.05, { ...named('prefill-ms-per-token'), minimum: 0, unit: 'milliseconds', section: engine, help: 'Time for one prompt token that is not cached.' }),
  decodeMsPerToken: numberOption(10, { ...named('decode-ms-per-token'), minimum: 0, unit: 'milliseconds', section: engine, help: 'Time between two output tokens.' }),
  speedup: numberOption(1, { ...named('speedup'), minimum: 0.001, section: engine, help: 'Divides all simulated times.' }),
  kvEvents: booleanOption(true, { ...named('kv-events'), section: engine, help: 'Publish cache events.' }),
}

export const startOptions = {
  config: configFileOption,
  port: integerOption(8088, { ...own, name: 'port', env: ['WARMPATH_PORT'], minimum: 0, maximum: 65535, section: 'Serving', defaultText: '8088, or a free one when it is taken', help: 'HTTP port; 0 takes a free one.' }),
  host: textOption('127.0.0.1', { ...own, name: 'host', env: ['WARMPATH_HOST'], section: 'Serving', help: 'Address that it binds.' }),
  table: booleanOption(true, { ...own, name: 'table', env: ['WARMPATH_TABLE'], section: 'Serving', help: 'Show a live table of the workers when standard output is a terminal.' }),
  workers: integerOption(4, { ...named('workers'), minimum: 1, maximum: 1000, section: engine, help: 'Simulated workers in the process.' }),
}

export const workerOptions = {
  config: configFileOption,
  endpoint: endpointWithDefault('dynamo.backend.generate', { ...named('endpoint'), section: 'Serving', help: 'Where to serve, as namespace.component.endpoint.' }),
  role: textOption('aggregated', { ...named('role'), choices: ['aggregated', 'prefill', 'decode'], section: 'Serving', help: 'What the worker announces to do.' }),
  modelPath: maybeText({ ...named('model-path'), section: 'Serving', help: 'Folder of a model whose files the card names; a frontend needs them.' }),
}
