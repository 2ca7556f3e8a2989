/** From a registration to the model card that routers and frontends read. The order of checks and the form are Dynamo's. */
import { slugOf } from '../dynamo/cards/model-card.ts'
import type { Json, JsonObject } from '../ports.ts'
import { ArgumentError } from './errors.ts'
import { checkedFile, readModelFiles, type ModelFiles } from './model-files.ts'
import { ModelInput, ModelType, modelTypeBits, modelTypeText, WorkerType } from './model-kinds.ts'
import { runtimeConfigSection, type ModelRuntimeConfig } from './runtime-config.ts'

/** What a worker says of its model. */
export interface ModelDescription {
  readonly modelInput: ModelInput
  /** One or more surfaces: `ModelType.Chat | ModelType.Completions`. */
  readonly modelType: ModelType
  /** Folder with config.json and tokenizer.json, which a frontend reads. Left out: the card names no files. */
  readonly modelPath?: string
  /** Name that callers use. Default: `modelPath`. */
  readonly modelName?: string
  readonly workerType: WorkerType
  /** Stages that must be there for this worker to serve: any of the groups, all of a group. */
  readonly needs?: readonly (readonly WorkerType[])[]
  /** Tokens per KV block. Default 16, without files 0. */
  readonly kvCacheBlockSize?: number
  readonly runtimeConfig?: ModelRuntimeConfig
  readonly userData?: JsonObject
  /** A Jinja file in place of the chat template of the folder. */
  readonly customTemplatePath?: string
  /** Further names of the model. */
  readonly modelAliases?: readonly string[]
  /** LoRA adapters that the engine holds at once. */
  readonly maxGpuLoraCount?: number
  /** With `baseModelPath`: registers an adapter of that model under this name. */
  readonly loraName?: string
  readonly baseModelPath?: string
  /** The card names no files although there is a path; a service without a local model. */
  readonly skipModelAssets?: boolean
  /** How the frontend routes to these workers, in the card's own form. */
  readonly routerConfig?: JsonObject
}

const place = 'registerModel'
const workerTypes: readonly string[] = Object.values(WorkerType)
const inputs: readonly string[] = Object.values(ModelInput)
const blockSizeDefault = 16

/** Errors: `ArgumentError` for the first field that does not fit. */
export function checkDescription(description: ModelDescription): void {
  const { modelInput, modelType, workerType, needs } = description
  const bad = (field: string, value: unknown, mend: string): ArgumentError => new ArgumentError(place, field, value, mend)
  if (!inputs.includes(modelInput)) throw bad('modelInput', modelInput, 'give a member of ModelInput')
  if (!Number.isInteger(modelType) || (modelType & ~modelTypeBits) !== 0) throw bad('modelType', modelType, 'combine members of ModelType with |')
  if (!workerTypes.includes(workerType)) throw bad('workerType', workerType, 'give a member of WorkerType')
  if (needs !== undefined && !(Array.isArray(needs) && needs.every((group) => Array.isArray(group) && group.every((type: string) => workerTypes.includes(type))))) {
    throw bad('needs', needs, 'give a list of lists of WorkerType members')
  }
  if (workerType !== WorkerType.Aggregated && (needs ?? []).length === 0) {
    const example = workerType === WorkerType.Prefill ? '[[WorkerType.Decode]]' : '[[WorkerType.Prefill]]'
    throw bad('needs', needs, `a worker of type ${workerType} depends on others; name them, such as ${example}`)
  }
  if (workerType === WorkerType.Prefill && modelType !== ModelType.Empty && modelType !== ModelType.Prefill) {
    throw bad('modelType', modelTypeText(modelType), 'a prefill worker offers no OpenAI surface; give ModelType.Empty or ModelType.Prefill')
  }
  if ((description.loraName === undefined) !== (description.baseModelPath === undefined)) {
    const [missing, given] = description.loraName === undefined ? ['loraName', 'baseModelPath'] : ['baseModelPath', 'loraName']
    throw bad(missing, undefined, `${given} goes with it; give both or neither`)
  }
  checkNames(description, bad)
}

function checkNames(description: ModelDescription, bad: (field: string, value: unknown, mend: string) => ArgumentError): void {
  const { kvCacheBlockSize: blockSize, modelAliases, maxGpuLoraCount, userData } = description
  if (nameOf(description) === '') throw bad('modelName', description.modelName, 'give a name that is not empty, or a modelPath')
  if (blockSize !== undefined && (!Number.isInteger(blockSize) || blockSize < 0 || blockSize > 4_294_967_295)) throw bad('kvCacheBlockSize', blockSize, 'give a whole number of tokens')
  if (modelAliases?.some((alias) => typeof alias !== 'string' || alias === '') === true) throw bad('modelAliases', modelAliases, 'give texts that are not empty')
  if (maxGpuLoraCount !== undefined && (!Number.isInteger(maxGpuLoraCount) || maxGpuLoraCount < 0)) throw bad('maxGpuLoraCount', maxGpuLoraCount, 'give a whole number')
  if (userData !== undefined && (userData === null || typeof userData !== 'object' || Array.isArray(userData))) throw bad('userData', userData, 'give an object')
}

const nameOf = ({ loraName, modelName, modelPath }: ModelDescription): string => loraName ?? modelName ?? modelPath ?? ''

/** A model type whose cards name no files, whatever the path. */
const servicesOnly = ModelType.TensorBased | ModelType.Images | ModelType.Videos | ModelType.Realtime

/** Checks a description, reads its files and gives the `card_json`. Errors: `ArgumentError`; a folder that is no model folder. */
export async function modelCard(description: ModelDescription): Promise<JsonObject> {
  checkDescription(description)
  const section = runtimeConfigSection(description.runtimeConfig ?? {})
  const path = description.baseModelPath ?? description.modelPath
  const isService = (description.modelType & servicesOnly) !== 0
  const files = path === undefined || isService || description.skipModelAssets === true ? null : await filesOf(path)
  const { customTemplatePath: template } = description
  const templateFile = template === undefined ? null : await checkedFile(template)
  if (template !== undefined && templateFile === null) throw new ArgumentError(place, 'customTemplatePath', template, 'there is no such file that can be read')
  return cardOf(description, section, {
    ...(files?.sections ?? { model_info: null, tokenizer: null }),
    ...(templateFile === null ? {} : { chat_template_file: { hf_chat_template: { is_custom: true, file: templateFile } } }),
  }, files)
}

async function filesOf(path: string): Promise<ModelFiles> {
  try {
    return await readModelFiles(path)
  } catch (error) {
    throw new ArgumentError(place, 'modelPath', path, error instanceof Error ? error.message : String(error))
  }
}

/** Lower case; what is not `[a-z0-9-_]` becomes `_`, without any at the start. */
export const modelSlug = (name: string): string => slugOf(name).replace(/^_+/, '')

function cardOf(description: ModelDescription, section: JsonObject, assets: JsonObject, files: ModelFiles | null): JsonObject {
  const { modelPath, baseModelPath, modelType, loraName, maxGpuLoraCount, runtimeConfig, routerConfig, userData, modelAliases } = description
  const name = nameOf(description)
  const loraCount: JsonObject = maxGpuLoraCount === undefined ? {} : { max_gpu_lora_count: maxGpuLoraCount }
  return {
    display_name: name,
    slug: modelSlug(name),
    ...(modelAliases === undefined || modelAliases.length === 0 ? {} : { aliases: modelAliases }),
    source_path: baseModelPath ?? modelPath ?? name,
    ...assets,
    ...(files === null ? {} : { architectural_max_context_length: files.contextLengthMax ?? 0 }),
    context_length: runtimeConfig?.contextLength ?? files?.contextLengthMax ?? 0,
    kv_cache_block_size: description.kvCacheBlockSize ?? (files === null ? 0 : blockSizeDefault),
    migration_limit: 0,
    model_type: modelTypeText(modelType),
    model_input: description.modelInput,
    worker_type: description.workerType,
    needs: (description.needs ?? []) as Json,
    ...(userData === undefined ? {} : { user_data: userData }),
    ...(routerConfig === undefined ? {} : { router_config: routerConfig }),
    ...(loraName === undefined ? {} : { lora: { name: loraName, ...loraCount } }),
    runtime_config: loraName === undefined ? { ...section, ...loraCount } : section,
    media_decoder: null,
    media_fetcher: null,
  }
}
