import { costPolicy, definePolicy } from 'warmpath'

const cost = costPolicy({ overlapScoreCredit: 1.5 })

export default definePolicy({
  name: 'leave-room',
  score(candidate, request): number {
    const { totalKvBlocks } = candidate.worker
    const fill = totalKvBlocks === null ? 0 : candidate.potentialDecodeBlocks / totalKvBlocks
    // A worker that is nearly full evicts what it has: better a cold one.
    return cost.score(candidate, request) + (fill > 0.9 ? 1000 * fill : 0)
  },
})
