/** Discovery as the environment asks for it; settings that name none are mistakes of whoever started us. */
import { UsageError } from '../config/usage-error.ts'
import { createDiscovery } from '../dynamo/discovery/create-discovery.ts'
import { DiscoveryOptionError, discoveryOptionsFromEnv } from '../dynamo/discovery/discovery-options.ts'
import type { Clock, Discovery, Log } from '../ports.ts'

/** Not started yet. Errors: `UsageError`. */
export function openDiscovery(env: Readonly<Record<string, string | undefined>>, parts: { readonly clock: Clock; readonly log: Log }): Discovery {
  try {
    return createDiscovery({ ...discoveryOptionsFromEnv(env), ...parts })
  } catch (error) {
    if (error instanceof DiscoveryOptionError) throw new UsageError(error.message)
    throw error
  }
}
