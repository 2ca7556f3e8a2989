/** Where the model card comes from when no model folder is given: the first worker of that model in the pools' namespaces. */
import { parseModelCard } from '../dynamo/cards/model-card.ts'
import type { Discovery, JsonObject, Watch } from '../ports.ts'

/**
 * Follows the cards of `namespaces` until one of model `modelName` is seen; calls `onCard` with its `card_json` once.
 * Cards that cannot be read, and those of LoRA adapters, are passed over.
 */
export function followWorkerCard(discovery: Discovery, namespaces: readonly string[], modelName: string, onCard: (card: JsonObject) => void): Watch {
  let watches: Watch[] = []
  const close = (): void => {
    for (const watch of watches) watch.close()
    watches = []
  }
  let found = false
  watches = [...new Set(namespaces)].map((namespace) => discovery.watch('v1/mdc', namespace, (event) => {
    if (found || event.kind !== 'put') return
    const raw = cardOf(event.value, modelName)
    if (raw === null) return
    found = true
    close()
    onCard(raw)
  }))
  if (found) close()
  return { close }
}

function cardOf(record: JsonObject, modelName: string): JsonObject | null {
  try {
    const card = parseModelCard(record, null)
    return card.displayName === modelName && card.raw['tokenizer'] != null ? card.raw : null
  } catch {
    return null
  }
}
