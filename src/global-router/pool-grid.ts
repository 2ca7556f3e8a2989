/**
 * Which pool takes a request: a grid over what the request is and what it asks for, priority overrides, and whom to try next.
 *
 * Source: selection strategies of Dynamo's global router 1.6.1.
 */

/** One axis of a grid: equal steps from `min` to `max`; values outside belong to the first or last step. */
export interface GridAxis {
  readonly min: number
  readonly max: number
  /** Number of steps. */
  readonly resolution: number
}

/** Requests whose priority lies in the range, bounds included, go to `targetPool` whatever the grid says. */
export interface PriorityOverride {
  readonly minPriority: number
  readonly maxPriority: number
  readonly targetPool: number
}

/** A grid of up to three axes, in the order in which `mapping` is nested. */
export interface PoolStrategy {
  readonly axes: readonly GridAxis[]
  /** Pool indexes, one per cell, the last axis fastest. */
  readonly mapping: Int32Array
  readonly overrides: readonly PriorityOverride[]
}

/** Index of the step that holds `value`. */
export function stepOf({ min, max, resolution }: GridAxis, value: number): number {
  const step = Math.trunc((value - min) / ((max - min) / resolution))
  return Math.max(0, Math.min(step, resolution - 1))
}

/**
 * The pool of a request. `values`: one per axis; null takes the middle of the axis. The first override that holds the
 * priority wins.
 */
export function poolOf(strategy: PoolStrategy, values: readonly (number | null)[], priority: number | null): number {
  if (priority !== null) {
    for (const rule of strategy.overrides) if (priority >= rule.minPriority && priority <= rule.maxPriority) return rule.targetPool
  }
  let cell = 0
  for (const [index, axis] of strategy.axes.entries()) {
    cell = cell * axis.resolution + stepOf(axis, values[index] ?? (axis.min + axis.max) / 2)
  }
  return strategy.mapping[cell] as number
}

/** The selected pool, then the pools with a smaller priority number (faster ones), from slow to fast; equal ones in their order. */
export function retryOrder(selected: number, priorities: readonly number[]): number[] {
  const own = priorities[selected] as number
  const faster = priorities.map((priority, pool) => ({ priority, pool })).filter(({ priority }) => priority < own)
  faster.sort((left, right) => right.priority - left.priority || left.pool - right.pool)
  return [selected, ...faster.map(({ pool }) => pool)]
}
