/** What a pool's router means by its failure: Dynamo's own raises every failure of a worker as an invalid request. */
import { failureReasons, type Failure, type FailureClass } from '../model/failure.ts'

const hidden = /^(?:InvalidRequest: )?ValueError: (?<name>[A-Za-z]+): (?<message>.*)$/s
const isClass = (name: string): name is FailureClass => Object.hasOwn(failureReasons, name)

/** The failure with its first class again; others as they are. Source: error chain of Dynamo's standalone router 1.6.1. */
export function innerFailure(failure: Failure): Failure {
  if (failure.class !== 'InvalidRequest') return failure
  const found = hidden.exec(failure.message)?.groups
  const name = found?.['name'] ?? ''
  if (found === undefined || !isClass(name)) return failure
  const message = found['message'] ?? ''
  // A stream that broke may be continued elsewhere; a frontend does so for this reason only.
  if (name === 'Unavailable' && message.startsWith('Stream ended')) return { class: name, reason: 'backend.stream_incomplete', message }
  return { class: name, reason: failureReasons[name][0], message }
}
