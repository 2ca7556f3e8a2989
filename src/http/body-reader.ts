/** Reads a request body within its bound. */
import type { IncomingMessage } from 'node:http'
import { FailureError } from '../model/failure.ts'

const tooLarge = (limit: number, actual: number): FailureError =>
  new FailureError({
    class: 'PayloadTooLarge',
    reason: 'request.payload_too_large',
    message: `the body has more than ${limit} bytes; send a shorter prompt`,
    publicDetail: { type: 'size_limit', limit, actual },
  })

/**
 * The whole body as text.
 *
 * Bounds: `limitBytes`; more rejects with PayloadTooLarge, without reading on. Errors: invalid UTF-8 is InvalidRequest.
 */
export function readBody(request: IncomingMessage, limitBytes: number): Promise<string> {
  const declared = Number(request.headers['content-length'] ?? 0)
  if (declared > limitBytes) return Promise.reject(tooLarge(limitBytes, declared))
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > limitBytes) {
        request.pause()
        request.removeAllListeners('data')
        chunks.length = 0
        reject(tooLarge(limitBytes, size))
        return
      }
      chunks.push(chunk)
    })
    request.on('end', () => {
      try {
        resolve(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks, size)))
      } catch (cause) {
        reject(new FailureError({ class: 'InvalidRequest', reason: 'request.invalid', message: 'the body is not UTF-8 text' }, { cause }))
      }
    })
    const broken = (): void => reject(new FailureError({ class: 'Cancelled', reason: 'request.cancelled', message: 'the client left before the body was complete' }))
    request.on('error', broken)
    request.on('aborted', broken)
  })
}
