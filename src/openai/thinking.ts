/** Whether the model is to think: the words of different families, said alike to every template. */
import type { JsonObject } from '../ports.ts'

/**
 * Template variables with `thinking`, `enable_thinking` and `thinking_mode` in agreement as soon as one of them, or `effort`, is given;
 * as they came when none is.
 */
export function thinkingVariables(variables: JsonObject, effort: string | undefined): JsonObject {
  const all: JsonObject = effort === undefined ? variables : { reasoning_effort: effort, ...variables }
  const wanted = isWanted(all)
  return wanted === undefined ? all : { ...all, thinking: wanted, enable_thinking: wanted, thinking_mode: wanted ? 'enabled' : 'disabled' }
}

function isWanted(variables: JsonObject): boolean | undefined {
  for (const name of ['thinking', 'enable_thinking']) if (typeof variables[name] === 'boolean') return variables[name]
  const mode = variables['thinking_mode']
  if (mode === 'enabled' || mode === 'disabled') return mode === 'enabled'
  const effort = variables['reasoning_effort']
  return typeof effort === 'string' ? effort !== 'none' : undefined
}
