/** The session of a request, from what travels with it. */
import { sessionIdBytesMax, sessionKeyOf, utf8Length } from '../affinity/session-key.ts'
import type { GenerateRequest } from '../dynamo/wire/generate-request.ts'
import { invalid } from '../dynamo/wire/request-fields.ts'
import type { IncomingRequest } from '../ports.ts'
import { mapOf } from './decode-edits.ts'

/** Metadata in which Dynamo's frontends hand a session's name on. */
export const sessionMetadataKey = 'dynamo.llm.session_affinity'

/**
 * The key of the request's binding: the metadata, else `agent_context`; null without a session.
 *
 * Errors: `FailureError` of class InvalidRequest for an id of more than 256 bytes, or a rank asked for without its worker.
 */
export function sessionKey({ metadata }: IncomingRequest, generate: GenerateRequest): string | null {
  const context = mapOf(generate.field('agent_context'))
  const named = metadata[sessionMetadataKey]
  const id = named !== undefined && named !== '' ? named : context['session_id']
  if (typeof id !== 'string' || id === '') return null
  const parent = id === context['session_id'] ? context['parent_session_id'] : null
  const parentId = typeof parent === 'string' && parent !== '' ? parent : null
  for (const each of [id, parentId]) {
    if (each !== null && utf8Length(each) > sessionIdBytesMax) throw invalid(`the session id has ${utf8Length(each)} bytes, expected at most ${sessionIdBytesMax}`)
  }
  if (generate.routing.dpRank !== undefined) {
    throw invalid(`\`routing.dp_rank\` is ${generate.routing.dpRank} without a worker id; with session affinity give the worker too, or leave both to the session`)
  }
  const routing = mapOf(generate.field('routing'))
  const prefillRank = routing['prefill_dp_rank']
  if (typeof prefillRank === 'number' && prefillRank !== 0xffffffff && (routing['prefill_worker_id'] ?? routing['backend_instance_id'] ?? null) === null) {
    throw invalid(`\`routing.prefill_dp_rank\` is ${prefillRank} without a prefill worker id; with session affinity give the worker too, or leave both to the session`)
  }
  return sessionKeyOf(id, parentId)
}
