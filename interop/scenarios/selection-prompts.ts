/** Prompts of a differential run, and the engines that tell both services what they hold. */
import type { EngineSocket } from '../engine-socket.ts'
import { call, type Body, type Dice, type Side } from './selection-sides.ts'
import { until } from '../../test/until.ts'

export const blockSize = 4
export const model = 'm'

/** The engine's names of blocks: the same for the same prefix. */
export function engineHashes(tokens: readonly number[]): bigint[] {
  const hashes: bigint[] = []
  let chain = 7n
  for (let at = 0; at + blockSize <= tokens.length; at += blockSize) {
    for (const token of tokens.slice(at, at + blockSize)) chain = (chain * 1_099_511_628_211n + BigInt(token) + 1n) % (2n ** 63n)
    hashes.push(chain)
  }
  return hashes
}

/** Prompts that often begin like earlier ones. */
export class Prompts {
  readonly #dice: Dice
  readonly #kept: number[][] = []

  constructor(dice: Dice) {
    this.#dice = dice
  }

  /** A new prompt of at least `lengthMin` tokens, or one that begins like another. */
  next(lengthMin = 0): number[] {
    const dice = this.#dice
    const fresh = (count: number): number[] => Array.from({ length: count }, () => dice.below(1000))
    const base = this.#kept.length > 0 && dice.chance(0.7) ? dice.of(this.#kept) : []
    const prompt = [...base.slice(0, dice.below(base.length + 1)), ...fresh(dice.below(30))]
    if (prompt.length < lengthMin) prompt.push(...fresh(lengthMin - prompt.length))
    this.#kept.push(prompt)
    if (this.#kept.length > 60) this.#kept.shift()
    return prompt
  }
}

/**
 * Waits until both sides have forgotten the blocks of ranks that a worker no longer has. The original does so beside the events of other workers,
 * and how its tree is cut depends on which came first.
 */
export async function bothForgot(sides: readonly Side[], workerId: number | bigint, keeps: (rank: number) => boolean): Promise<void> {
  const isGone = async (side: Side): Promise<boolean> => {
    const { body } = await call(side, 'GET', '/dump')
    const events = Object.values(body as Body).flatMap((partition) => ((partition as Body)['events'] as Body[] | undefined) ?? [])
    return !events.some((row) => `${row['worker_id']}` === `${workerId}` && !keeps(Number((row['event'] as Body)['dp_rank'] ?? 0)))
  }
  await until(`both forget ranks of worker ${workerId}`, async () => {
    for (const side of sides) if (!(await isGone(side))) return false
    return true
  }, 20_000)
}

/** Waits until both sides have applied all that a rank sent: sends a block of `marker`'s own and looks for it. */
export async function bothFollow(sides: readonly Side[], engine: EngineSocket, { workerId, rank }: { workerId: number | bigint; rank: number }, marker: number): Promise<void> {
  const tokens = Array.from({ length: blockSize }, (_, index) => marker * 10 + index)
  const event = ['BlockStored', [BigInt(marker) << 20n], null, tokens, blockSize]
  const hasIt = async (side: Side): Promise<boolean> => {
    const { body } = await call(side, 'POST', '/overlap_scores', { model_name: model, token_ids: tokens })
    return ((body as Body)['workers'] as Body[] | undefined)?.some((row) => `${row['worker_id']}` === `${workerId}` && row['dp_rank'] === rank && row['device_blocks'] === 1) === true
  }
  await engine.send([event])
  await until(`both follow rank ${rank} of worker ${workerId}`, async () => {
    for (const side of sides) {
      if (await hasIt(side)) continue
      await engine.send([event])
      return false
    }
    return true
  }, 20_000)
}
