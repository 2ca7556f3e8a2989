/** Options of the simulated workers: `warmpath start` and `warmpath worker`. */
import { booleanOption, endpointOption, endpointWithDefault, integerOption, maybeInteger, maybePath, numberOption, textOption } from '../option.ts'
import { configFileOption } from './router-own.ts'

const own = { origin: 'warmpath' as const, since: 'Warmpath 0.1' }
const serving = 'Serving'
const engine = 'Simulated engine'
const named = (name: string) => ({ ...own, name, env: [`WARMPATH_SIM_${name.toUpperCase().replaceAll('-', '_')}`] })

export const engineOptions = {
  modelName: textOption('simulated', { ...named('model-name'), section: engine, help: 'Model name that the workers announce.' }),
  blockSize: integerOption(16, {
    ...named('block-size'), minimum: 1, maximum: 65536, unit: 'tokens', section: engine,
    help: 'Tokens per KV cache block.',
  }),
  blocks: integerOption(4096, {
    ...named('blocks'), minimum: 1, maximum: 134_217_728, unit: 'blocks', section: engine,
    help: 'KV cache of one rank.',
  }),
  dpSize: integerOption(1, {
    ...named('dp-size'), minimum: 1, maximum: 1024, unit: 'ranks', section: engine,
    help: 'Data-parallel ranks of one worker.',
  }),
  maxNumSeqs: integerOption(64, {
    ...named('max-num-seqs'), minimum: 1, maximum: 65536, unit: 'requests', section: engine,
    help: 'Most requests that a rank runs at once.',
  }),
  maxNumBatchedTokens: integerOption(8192, {
    ...named('max-num-batched-tokens'), minimum: 1, maximum: 16_777_216, unit: 'tokens', section: engine,
    help: 'Most tokens that a rank computes in one step.',
  }),
  outputTokens: maybeInteger({
    ...named('output-tokens'), minimum: 1, unit: 'tokens', section: engine, defaultText: 'never',
    help: 'After so many output tokens the model ends by itself, unless the request ignores that.',
  }),
  prefillMsPerToken: numberOption(0.05, {
    ...named('prefill-ms-per-token'), minimum: 0, unit: 'milliseconds', section: engine,
    help: 'Time for one prompt token that is not cached.',
  }),
  decodeMsPerToken: numberOption(5, {
    ...named('decode-ms-per-token'), minimum: 0, unit: 'milliseconds', section: engine,
    help: 'Time of one step: between two output tokens of a request that runs alone.',
  }),
  decodeMsPerSequence: numberOption(0.1, {
    ...named('decode-ms-per-sequence'), minimum: 0, unit: 'milliseconds', section: engine,
    help: 'What each further request adds to a step.',
  }),
  speedup: numberOption(1, { ...named('speedup'), minimum: 0.001, maximum: 1e9, section: engine, help: 'Divides all simulated times.' }),
  kvEvents: booleanOption(true, { ...named('kv-events'), section: engine, help: 'Publish cache events; workers of the role decode never do.' }),
}

export const startOptions = {
  config: configFileOption,
  httpPort: integerOption(8080, {
    ...own, name: 'http-port', env: ['WARMPATH_HTTP_PORT'], minimum: 0, maximum: 65535, section: serving,
    help: 'Port of the OpenAI-compatible API and of /generate; 0 takes a free one. When it is busy and was not asked for, a free one is taken.',
  }),
  httpHost: textOption('127.0.0.1', {
    ...own, name: 'http-host', env: ['WARMPATH_HTTP_HOST'], section: serving,
    help: 'Address that the HTTP port binds.',
  }),
  table: booleanOption(true, {
    ...own, name: 'table', env: ['WARMPATH_TABLE'], section: serving,
    help: 'Show a live table of the workers when standard output is a terminal.',
  }),
  aggregated: booleanOption(false, {
    ...own, name: 'aggregated', env: ['WARMPATH_AGGREGATED'], section: serving,
    help: 'Workers that do both, without a prefill stage.',
  }),
  workers: integerOption(2, {
    ...named('workers'), minimum: 1, maximum: 1000, section: engine,
    help: 'Simulated workers that answer: decode workers, with --aggregated whole ones.',
  }),
  prefillWorkers: integerOption(2, {
    ...named('prefill-workers'), minimum: 1, maximum: 1000, section: engine,
    help: 'Simulated workers that compute prompts; none with --aggregated.',
  }),
}

export const workerOptions = {
  config: configFileOption,
  endpoint: endpointWithDefault('dynamo.backend.generate', {
    ...named('endpoint'), section: serving,
    help: 'Where to serve, as namespace.component.endpoint.',
  }),
  role: textOption('aggregated', {
    ...named('role'), choices: ['aggregated', 'prefill', 'decode'], section: serving,
    help: 'What the worker announces to do.',
  }),
  modelPath: maybePath({ ...named('model-path'), section: serving, help: 'Folder of a model whose files the card names; a frontend needs them.' }),
  prefillRouter: endpointOption({
    ...named('prefill-router'), section: serving,
    help: 'Endpoint that computes prompts first, with one output token; what it hands over is taken before decoding here. The card then says aggregated.',
  }),
  dpStart: integerOption(0, { ...named('dp-start'), minimum: 0, maximum: 65535, section: engine, help: 'First data-parallel rank.' }),
  hashSeed: integerOption(0, {
    ...named('hash-seed'), minimum: 0, maximum: 4_294_967_295, section: engine,
    help: 'Workers with different seeds publish different block hashes for the same content.',
  }),
}
