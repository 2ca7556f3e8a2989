/** All scenarios, in the order they run. */
import type { Scenario } from '../scenario.ts'
import { captureScenarios } from './captures.ts'
import { apiScenarios } from './api.ts'
import { chainScenarios } from './chains.ts'
import { churnScenarios } from './churn.ts'
import { combinationScenarios } from './combinations.ts'
import { conditionalScenarios } from './conditional.ts'
import { disaggScenarios } from './disagg.ts'
import { endpointScenarios } from './endpoints.ts'
import { equalityScenarios } from './equality.ts'
import { etcdScenarios } from './etcd.ts'
import { failureScenarios } from './failures.ts'
import { frontendScenarios } from './frontend.ts'
import { generationScenarios } from './generations.ts'
import { globalRouterScenarios } from './global-router.ts'
import { loadScenarios } from './load.ts'
import { modeScenarios } from './modes.ts'
import { parserScenarios } from './parsers.ts'
import { planeScenarios } from './planes.ts'
import { queueScenarios } from './queue.ts'
import { replicaScenarios } from './replicas.ts'
import { sdkScenarios } from './sdk.ts'
import { kubernetesScenarios } from './kubernetes.ts'
import { vllmScenarios } from './vllm.ts'

export const scenarios: readonly Scenario[] = [
  ...endpointScenarios, ...failureScenarios, ...equalityScenarios, ...chainScenarios, ...disaggScenarios, ...combinationScenarios, ...conditionalScenarios, ...captureScenarios, ...frontendScenarios, ...modeScenarios, ...apiScenarios, ...parserScenarios, ...globalRouterScenarios, ...etcdScenarios, ...churnScenarios, ...loadScenarios, ...queueScenarios, ...replicaScenarios, ...sdkScenarios, ...planeScenarios, ...generationScenarios, ...kubernetesScenarios, ...vllmScenarios,
]
