/** Publishing, changing and taking back what a worker says of its model. */
import type { Endpoint } from './endpoint.ts'
import { modelCard, type ModelDescription } from './model-card.ts'

export interface ModelRegistration extends ModelDescription {
  /** Where the model is served. */
  readonly endpoint: Endpoint
}

/**
 * Publishes a model, or with `loraName` an adapter, at an endpoint. Frontends show it when `needs` are met.
 * Errors: `ArgumentError` that names field, value and mend; discovery.
 */
export async function registerModel(registration: ModelRegistration): Promise<void> {
  const { endpoint, ...description } = registration
  const card = await modelCard(description)
  endpoint.runtime.adopt(endpoint)
  await endpoint.models.register(card, registration.loraName ?? null)
}

/** Takes the model back, or one adapter. Errors: nothing is registered under it. */
export async function unregisterModel(endpoint: Endpoint, loraName?: string): Promise<void> {
  await endpoint.models.unregister(loraName ?? null)
}

/** Replaces the worker's own taints while it runs; those of its topology stay. Errors: no model yet; a reserved taint. */
export async function updateModelTaints(endpoint: Endpoint, taints: Iterable<string>): Promise<void> {
  await endpoint.models.updateTaints(taints)
}
