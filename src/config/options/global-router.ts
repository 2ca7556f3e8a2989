/** Options of the global router: those of Dynamo's, and what ours adds. */
import { maybeNumber, maybePath, maybeText, textOption } from '../option.ts'
import { routerOwnOptions } from './router-own.ts'

const target = 'Target'
const since = 'Dynamo 1.6'

export const globalRouterOptions = {
  poolConfig: maybePath({
    name: 'config', env: ['DYN_GLOBAL_ROUTER_CONFIG'], since, section: target,
    help: 'JSON file with the pools, their namespaces and the grids that choose among them. Needed.',
  }),
  modelName: maybeText({
    name: 'model-name', env: ['DYN_GLOBAL_ROUTER_MODEL_NAME'], since, section: target,
    help: 'Name of the model, as its workers have it; a model folder is taken too. Needed.',
  }),
  modelPath: maybePath({
    name: 'model-path', env: ['WARMPATH_MODEL_PATH'], origin: 'warmpath', since: 'Warmpath 0.1', section: target, defaultText: 'what a worker of the pools says',
    help: 'Folder with config.json and tokenizer.json, for the model card.',
  }),
  namespace: textOption('dynamo', { name: 'namespace', env: ['DYN_NAMESPACE'], since, section: target, help: 'Namespace to serve in.' }),
  componentName: textOption('global_router', { name: 'component-name', env: ['DYN_GLOBAL_ROUTER_COMPONENT_NAME'], since, section: target, help: 'Component name to serve under.' }),
  defaultTtftTargetMs: maybeNumber({
    name: 'default-ttft-target-ms', olderNames: [{ name: 'default-ttft-target', inDynamo16: true }], env: ['DYN_GLOBAL_ROUTER_DEFAULT_TTFT_TARGET_MS'],
    olderEnv: ['DYN_GLOBAL_ROUTER_DEFAULT_TTFT_TARGET'], since, unit: 'ms', section: target, defaultText: 'the middle of the grid',
    help: 'Time to first token that requests without a target of their own ask for.',
  }),
  defaultItlTargetMs: maybeNumber({
    name: 'default-itl-target-ms', olderNames: [{ name: 'default-itl-target', inDynamo16: true }], env: ['DYN_GLOBAL_ROUTER_DEFAULT_ITL_TARGET_MS'],
    olderEnv: ['DYN_GLOBAL_ROUTER_DEFAULT_ITL_TARGET'], since, unit: 'ms', section: target, defaultText: 'the middle of the grid',
    help: 'Time between tokens that requests without a target of their own ask for.',
  }),
  retryLimit: { ...routerOwnOptions.retryLimit, help: "How often a request that failed before its first output is tried on another replica of its pool's router." },
  firstOutputTimeoutSeconds: routerOwnOptions.firstOutputTimeoutSeconds,
  outputTimeoutSeconds: routerOwnOptions.outputTimeoutSeconds,
  activeRequestsMax: routerOwnOptions.activeRequestsMax,
}
