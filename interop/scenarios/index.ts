/** All scenarios, in the order they run. */
import type { Scenario } from '../scenario.ts'
import { endpointScenarios } from './endpoints.ts'

export const scenarios: readonly Scenario[] = [...endpointScenarios]
