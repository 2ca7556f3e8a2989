import { definePolicy } from 'warmpath'

export default definePolicy({
  name: 'warm-or-idle',
  select(candidates, request) {
    const warm = candidates.filter(({ deviceBlocks }) => deviceBlocks >= request.promptBlocks / 2)
    const from = warm.length > 0 ? warm : candidates
    return from.reduce((best, each) => (each.activeRequests < best.activeRequests ? each : best))
  },
})
