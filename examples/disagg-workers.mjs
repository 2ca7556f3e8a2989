import { createRuntime, ModelInput, ModelType, registerModel, WorkerType } from 'warmpath/worker'

const modelPath = process.argv[2] ?? './model' // a folder with config.json and tokenizer.json
const runtime = (await createRuntime()).drainOnSignals() // DYN_DISCOVERY_BACKEND and so on, as everywhere

const prefill = runtime.endpoint('dynamo.prefill.generate')
await registerModel({
  modelInput: ModelInput.Tokens,
  modelType: ModelType.Empty, // no OpenAI surface
  endpoint: prefill,
  modelPath,
  modelName: 'my-model',
  workerType: WorkerType.Prefill,
  needs: [[WorkerType.Decode]],
})

const decode = runtime.endpoint('dynamo.decode.generate')
await registerModel({
  modelInput: ModelInput.Tokens,
  modelType: ModelType.Chat | ModelType.Completions,
  endpoint: decode,
  modelPath,
  modelName: 'my-model',
  workerType: WorkerType.Decode,
  needs: [[WorkerType.Prefill]], // the model is served when both are there
})

await Promise.all([
  prefill.serveEndpoint(async function* (request) {
    // Compute the prompt here; what the decode side needs to fetch its KV goes along.
    yield { token_ids: request.token_ids.slice(-1), disaggregated_params: { blocks: Math.ceil(request.token_ids.length / 16) } }
  }),
  decode.serveEndpoint(async function* (request, context) {
    // Fetch the KV that `prefill_result` names, then decode. Here the prompt is said again.
    const handOver = request.prefill_result?.disaggregated_params
    console.log(`request ${context.id}: ${request.token_ids.length} tokens, handed over: ${JSON.stringify(handOver)}`)
    const tokens = request.token_ids.slice(0, request.stop_conditions?.max_tokens ?? 16)
    for (const [index, token] of tokens.entries()) {
      if (context.isStopped()) return
      yield { token_ids: [token], ...(index === tokens.length - 1 ? { finish_reason: 'length' } : {}) }
    }
  }),
])
