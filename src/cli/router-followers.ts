/** The routers of a process that take over changed settings, for as long as they live. */
import type { ChangeableSettings, RouterSettings } from '../router/contract.ts'
import type { KvRouter } from '../router/kv-router.ts'

/** Busy thresholds as models have them; null: off. */
export interface BusyThresholdValues {
  readonly activeDecodeBlocks: number | null
  readonly activePrefillTokens: number | null
  readonly activePrefillTokensFraction: number | null
}

interface Follower<Config> {
  /** A router goes when its pool does. */
  readonly router: WeakRef<KvRouter>
  readonly settingsOf: (config: Config) => RouterSettings
  settings: RouterSettings
}

const changeable = [
  'overlapScoreCredit', 'overlapScoreCreditDecay', 'prefillLoadScale', 'decodeActiveRequestWeight', 'hostCacheHitWeight', 'diskCacheHitWeight',
  'sharedCacheMultiplier', 'temperature', 'selectionPolicy',
] as const satisfies readonly (keyof ChangeableSettings)[]

export class RouterFollowers<Config> {
  #followers: Follower<Config>[] = []

  add(router: KvRouter, settingsOf: (config: Config) => RouterSettings, settings: RouterSettings): void {
    this.#forgetGone()
    this.#followers.push({ router: new WeakRef(router), settingsOf, settings })
  }

  /** `withThresholds`: busy thresholds are the routers' own, not their models'. */
  apply(config: Config, withThresholds: boolean): void {
    this.#forgetGone()
    for (const follower of this.#followers) {
      const router = follower.router.deref()
      if (router === undefined) continue
      const [before, settings] = [follower.settings, follower.settingsOf(config)]
      const changes: Partial<Record<keyof ChangeableSettings, unknown>> = {}
      for (const key of changeable) if (settings[key] !== undefined) changes[key] = settings[key]
      if (settings.queue !== undefined && JSON.stringify(settings.queue) !== JSON.stringify(before.queue)) changes.queue = settings.queue
      router.changeSettings(changes as ChangeableSettings)
      if (withThresholds && thresholdKeys.some((key) => before[key] !== settings[key])) {
        const [decodeBlocks, prefillTokens, prefillTokensFraction] = thresholdKeys.map((key) => settings[key])
        router.setBusyThresholds({ decodeBlocks: decodeBlocks ?? null, prefillTokens: prefillTokens ?? null, prefillTokensFraction: prefillTokensFraction ?? null })
      }
      follower.settings = settings
    }
  }

  #forgetGone(): void {
    this.#followers = this.#followers.filter(({ router }) => router.deref() !== undefined)
  }
}

const thresholdKeys = ['activeDecodeBlocksThreshold', 'activePrefillTokensThreshold', 'activePrefillTokensThresholdFraction'] as const
