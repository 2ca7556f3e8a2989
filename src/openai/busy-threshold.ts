/** GET and POST /busy_threshold: at what load workers count as busy. */
import { timingSafeEqual } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { Json, JsonObject } from '../ports.ts'
import { ApiError, invalidField } from './api-error.ts'
import type { BusyThresholds, ModelCatalog } from './catalog.ts'
import type { Fields } from './fields.ts'

const shape = (model: string, thresholds: BusyThresholds): JsonObject => ({
  model,
  active_decode_blocks_threshold: thresholds.activeDecodeBlocks,
  active_prefill_tokens_threshold: thresholds.activePrefillTokens,
  active_prefill_tokens_threshold_frac: thresholds.activePrefillTokensFraction,
})

export const listBusyThresholds = (catalog: ModelCatalog): JsonObject => ({
  thresholds: catalog.list().flatMap(({ name }): Json[] => {
    const thresholds = catalog.busyThresholds(name)
    return thresholds === undefined ? [] : [shape(name, thresholds)]
  }),
})

/** Sets what is given, reads the rest. Errors: 404 unknown model, 400 out of range, 401/403 for writes from afar. */
export function changeBusyThresholds(catalog: ModelCatalog, body: Fields, request: FastifyRequest, adminToken: string | undefined): JsonObject {
  const model = body.text('model')
  if (model === undefined || model === '') throw invalidField('model', '`model` is missing; name the model whose thresholds are meant')
  const blocks = body.number('active_decode_blocks_threshold', { min: 0, max: 1 })
  const tokens = body.integer('active_prefill_tokens_threshold', { min: 0, max: Number.MAX_SAFE_INTEGER })
  const fraction = body.number('active_prefill_tokens_threshold_frac', { min: 0 })
  const changes: Partial<BusyThresholds> = {
    ...(blocks === undefined ? {} : { activeDecodeBlocks: blocks }),
    ...(tokens === undefined ? {} : { activePrefillTokens: tokens }),
    ...(fraction === undefined ? {} : { activePrefillTokensFraction: fraction }),
  }
  if (catalog.busyThresholds(model) === undefined) throw unknown(model)
  if (Object.keys(changes).length > 0) {
    requirePermission(request, adminToken)
    if (!catalog.setBusyThresholds(model, changes)) throw unknown(model)
  }
  const now = catalog.busyThresholds(model)
  if (now === undefined) throw unknown(model)
  return shape(model, now)
}

const unknown = (model: string): ApiError =>
  new ApiError({ class: 'NotFound', reason: 'request.not_found', param: 'model', message: `Model ${JSON.stringify(model)} not found; thresholds can only be set for discovered models` })

/** Loopback may write; everybody else needs the token. Something that forwards for others does not count as loopback. */
function requirePermission(request: FastifyRequest, adminToken: string | undefined): void {
  const forwarded = request.headers['x-forwarded-for'] !== undefined || request.headers['forwarded'] !== undefined
  if (!forwarded && isLoopback(request.socket.remoteAddress ?? '')) return
  if (adminToken === undefined || adminToken === '') {
    throw new ApiError({ class: 'PermissionDenied', reason: 'request.permission_denied', message: 'thresholds can be written from loopback only; start the server with an admin token to allow it from elsewhere' })
  }
  const sent = /^bearer\s+(.+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? ''
  if (!sameText(sent, adminToken)) {
    throw new ApiError({ class: 'Unauthenticated', reason: 'request.unauthenticated', message: 'writing thresholds from elsewhere than loopback needs the header "authorization: Bearer <admin token>"', headers: { 'www-authenticate': 'Bearer' } })
  }
}

export const isLoopback = (address: string): boolean => address === '::1' || /^(::ffff:)?127\.\d+\.\d+\.\d+$/i.test(address)

function sameText(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}
