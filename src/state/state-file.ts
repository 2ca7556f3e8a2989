/**
 * One pool's state on disk: a line that names format and version, a line of JSON that says what follows, and the blocks.
 *
 * The blocks are a list of stored events in the layout of Dynamo 1.3's snapshots; behind them, from version 2 on, how long each assumed block
 * is still to live (u32, little endian, in units of 100 ms). The file is written whole under another name, synced
 * and renamed, so a reader sees the old one or the new one. What is torn, foreign or newer is refused by name.
 */
import { createHash } from 'node:crypto'
import { open, readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { makeFolder } from '../make-folder.ts'
import { decodeSnapshot, encodeSnapshot, SnapshotError } from '../dynamo/durable/snapshot-codec.ts'
import type { RouterEvent } from '../model/kv-event.ts'
import type { WorkerRank } from '../model/worker.ts'

export const stateFormat = 'warmpath-state'
/** The newest that is read, and the one that is written. Version 1 has no lives. */
export const stateVersion = 2

const lifeStepMs = 100

/** A rank as it was. `lastEventId`: of its newest event; null for one that was fed by routing decisions. */
export interface KeptRank extends WorkerRank {
  readonly lastEventId: bigint | null
  readonly events: readonly RouterEvent[]
  /** How long the blocks of `events`, in their order, are still to live when it is written; null: not known. Units: ms, kept in steps of 100. */
  readonly livesMs: readonly number[] | null
}

export interface KeptState {
  /** `namespace.component.endpoint` of the workers. */
  readonly target: string
  readonly blockSize: number
  readonly isEagle: boolean
  /** Unix time. Units: ms. */
  readonly writtenAtMs: number
  readonly ranks: readonly KeptRank[]
}

/** A file that cannot be used; the message says why. */
export class StateFileError extends Error {
  override readonly name = 'StateFileError'
}

/** The bytes of a state. */
export function encodeState(state: KeptState): Uint8Array {
  const { ranks, ...rest } = state
  const blocks = encodeSnapshot(ranks.flatMap(({ events }) => events), '1.3')
  const lives = ranks.flatMap(({ livesMs }) => livesMs ?? [])
  const tail = Buffer.alloc(4 * lives.length)
  lives.forEach((ms, index) => tail.writeUInt32LE(Math.min(0xffffffff, Math.ceil(ms / lifeStepMs)), 4 * index))
  const body = Buffer.concat([blocks, tail])
  const header = JSON.stringify({
    ...rest, bytes: body.length, lives: lives.length, sha256: sha256(body),
    ranks: ranks.map(({ workerId, dpRank, lastEventId, events, livesMs }) => [workerId.toString(), dpRank, lastEventId?.toString() ?? null, events.length, livesMs?.length ?? 0]),
  })
  return Buffer.concat([Buffer.from(`${stateFormat} ${stateVersion}\n${header}\n`), body])
}

/** Reads a state. Errors: `StateFileError` for bytes of another program, of a later version, or that are not whole. */
export function decodeState(bytes: Uint8Array): KeptState {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const first = lineAt(buffer, 0, 100)
  const version = first === null ? null : /^warmpath-state (\d{1,9})$/.exec(first.text)
  if (first === null || version === null) throw new StateFileError(`it is not a file of this program: it does not begin with "${stateFormat}"`)
  if (Number(version[1]) > stateVersion) throw new StateFileError(`it has version ${version[1]}, this program reads versions up to ${stateVersion}`)
  const second = lineAt(buffer, first.end, buffer.length)
  if (second === null) throw new StateFileError('it is torn: its head is not whole')
  const head = headOf(second.text)
  const body = buffer.subarray(second.end)
  if (body.length !== head.bytes) throw new StateFileError(`it is torn: ${body.length} of ${head.bytes} bytes are there`)
  if (sha256(body) !== head.sha256) throw new StateFileError('its content is damaged: the checksum differs')
  return { ...head.state, ranks: ranksOf(head, body) }
}

function ranksOf({ ranks: rows, lives: lifeCount }: Head, body: Buffer): KeptRank[] {
  const tail = body.length - 4 * lifeCount
  if (tail < 0) throw new StateFileError('its content is damaged: it is too short for the lives of its blocks')
  let events: readonly RouterEvent[]
  try {
    events = decodeSnapshot(body.subarray(0, tail)).events
  } catch (error) {
    if (!(error instanceof SnapshotError)) throw error
    throw new StateFileError(`its content is damaged: ${error.message}`)
  }
  let [start, life] = [0, 0]
  return rows.map(([workerId, dpRank, lastEventId, count, lives = 0]) => {
    const own = events.slice(start, (start += count))
    const first = life
    life += lives
    if (life > lifeCount) throw new StateFileError('its content is damaged: there are fewer lives than blocks')
    const livesMs = lives === 0 ? null : Array.from({ length: lives }, (_, index) => lifeStepMs * body.readUInt32LE(tail + 4 * (first + index)))
    return { workerId: BigInt(workerId), dpRank, lastEventId: lastEventId === null ? null : BigInt(lastEventId), events: own, livesMs }
  })
}

/** `lives`: from version 2 on. */
type Row = readonly [workerId: string, dpRank: number, lastEventId: string | null, count: number, lives?: number]

interface Head {
  readonly state: Omit<KeptState, 'ranks'>
  readonly bytes: number
  readonly lives: number
  readonly sha256: string
  readonly ranks: readonly Row[]
}

function headOf(text: string): Head {
  let value: Record<string, unknown>
  try {
    value = JSON.parse(text) as Record<string, unknown>
  } catch {
    throw new StateFileError('it is torn: its head is not JSON')
  }
  const { target, blockSize, isEagle, writtenAtMs, bytes, lives = 0, sha256: sum, ranks } = value
  const isRow = (row: unknown): row is Row => Array.isArray(row) && (row.length === 4 || (row.length === 5 && isCount(row[4]))) && /^\d{1,20}$/.test(String(row[0])) && Number.isSafeInteger(row[1]) &&
    (row[2] === null || /^\d{1,20}$/.test(String(row[2]))) && isCount(row[3])
  if (typeof target !== 'string' || typeof blockSize !== 'number' || typeof isEagle !== 'boolean' || typeof writtenAtMs !== 'number' || typeof bytes !== 'number' ||
    !isCount(lives) || typeof sum !== 'string' || !Array.isArray(ranks) || !ranks.every(isRow)) throw new StateFileError('its head lacks a field, or one has another type')
  return { state: { target, blockSize, isEagle, writtenAtMs }, bytes, lives, sha256: sum, ranks }
}

function lineAt(buffer: Buffer, start: number, most: number): { readonly text: string; readonly end: number } | null {
  const end = buffer.indexOf(0x0a, start)
  return end < 0 || end - start > most ? null : { text: buffer.toString('utf8', start, end), end: end + 1 }
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Null: there is no file. Errors: `StateFileError`; what reading a file throws. */
export async function readState(path: string): Promise<KeptState | null> {
  try {
    return decodeState(await readFile(path))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

/** Replaces the file. Errors: what the file system says; the old file stays then. */
export async function writeState(path: string, state: KeptState): Promise<void> {
  await makeFolder(dirname(path))
  const temporary = `${path}.${process.pid}.tmp`
  try {
    const file = await open(temporary, 'w', 0o600)
    try {
      await file.writeFile(encodeState(state))
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

/** No file is fine. */
export const removeState = (path: string): Promise<void> => rm(path, { force: true })
