/** The loads of an engine as Prometheus text. */
import type { RankLoad } from './rank.ts'

const families: readonly { readonly name: string; readonly type: 'gauge' | 'counter'; readonly help: string; readonly value: (load: RankLoad) => number }[] = [
  { name: 'running_requests', type: 'gauge', help: 'Requests in the batch', value: (load) => load.runningRequests },
  { name: 'waiting_requests', type: 'gauge', help: 'Requests that wait for a place in the batch', value: (load) => load.waitingRequests },
  { name: 'used_blocks', type: 'gauge', help: 'Blocks that a request uses', value: (load) => load.usedBlocks },
  { name: 'cached_blocks', type: 'gauge', help: 'Blocks whose content is known, used or kept', value: (load) => load.cachedBlocks },
  { name: 'total_blocks', type: 'gauge', help: 'Capacity in blocks', value: (load) => load.totalBlocks },
  { name: 'prompt_tokens_total', type: 'counter', help: 'Prompt tokens admitted', value: (load) => load.promptTokens },
  { name: 'cached_prompt_tokens_total', type: 'counter', help: 'Prompt tokens found in the cache', value: (load) => load.cachedTokens },
  { name: 'preemptions_total', type: 'counter', help: 'Requests put back for want of blocks', value: (load) => load.preemptions },
]

/** Content type of `engineMetrics`. */
export const engineMetricsType = 'text/plain; version=0.0.4; charset=utf-8'

/** One line per family and rank, named `warmpath_sim_*`. */
export function engineMetrics(loads: readonly RankLoad[]): string {
  return families.map(({ name, type, help, value }) => {
    const rows = loads.map((load) => `warmpath_sim_${name}{dp_rank="${load.dpRank}"} ${value(load)}\n`)
    return `# HELP warmpath_sim_${name} ${help}\n# TYPE warmpath_sim_${name} ${type}\n${rows.join('')}`
  }).join('')
}
