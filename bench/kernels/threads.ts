/** What a second thread brings: relaying and deciding side by side, and one thread that decides for others. */
import { once } from 'node:events'
import { MessageChannel, Worker, type Transferable } from 'node:worker_threads'
import { median } from '../measure.ts'
import type { ThreadReport, ThreadTask } from './thread-work.ts'

/** One kernel on one and on two threads, medians of the rounds. */
export interface ThreadRow {
  readonly kernel: 'relay' | 'decide'
  /** CPU microseconds per stream or decision. */
  readonly oneUs: number
  readonly twoUs: number
  /** Two threads' work per CPU second of each thread, by that of one: 2 when the second costs the first nothing. */
  readonly scaling: number
  /** The same by the wall clock: less where other programs take the cores. */
  readonly wallScaling: number
}

export interface ThreadFigures {
  readonly rows: readonly ThreadRow[]
  /** CPU microseconds per request of the thread that decides, messages included, and of the thread that asks. */
  readonly ownerUs: number
  readonly askerUs: number
}

const roundMs = 800
const warmMs = 1500

async function start(task: ThreadTask, transfer: readonly Transferable[] = []): Promise<Worker> {
  const worker = new Worker(new URL('./thread-work.js', import.meta.url), { workerData: task, transferList: [...transfer] })
  await once(worker, 'message')
  return worker
}

async function runAll(threads: readonly Worker[], ms: number): Promise<ThreadReport[]> {
  const reports = threads.map((thread) => once(thread, 'message'))
  for (const thread of threads) thread.postMessage(ms)
  return (await Promise.all(reports)).map(([report]) => report as ThreadReport)
}

const sum = (reports: readonly ThreadReport[], figure: keyof ThreadReport): number => reports.reduce((total, report) => total + report[figure], 0)
const cpuUs = (reports: readonly ThreadReport[]): number => sum(reports, 'cpuNs') / 1000 / sum(reports, 'done')
const perSecond = (reports: readonly ThreadReport[]): number => reports.reduce((total, { done, wallNs }) => total + (1e9 * done) / wallNs, 0)

async function compare(kernel: ThreadRow['kernel'], rounds: number): Promise<ThreadRow> {
  const threads = [await start({ kind: kernel }), await start({ kind: kernel })]
  await runAll(threads, warmMs)
  const found: { one: ThreadReport[]; two: ThreadReport[] }[] = []
  for (let round = 0; round < rounds; round += 1) {
    const one = await runAll([threads[round % 2]!], roundMs)
    found.push({ one, two: await runAll(threads, roundMs) })
  }
  await Promise.all(threads.map((thread) => thread.terminate()))
  return {
    kernel, oneUs: median(found.map(({ one }) => cpuUs(one))), twoUs: median(found.map(({ two }) => cpuUs(two))),
    scaling: median(found.map(({ one, two }) => (2 * cpuUs(one)) / cpuUs(two))), wallScaling: median(found.map(({ one, two }) => perSecond(two) / perSecond(one))),
  }
}

async function ownerCost(rounds: number): Promise<Pick<ThreadFigures, 'ownerUs' | 'askerUs'>> {
  const { port1, port2 } = new MessageChannel()
  const threads = [await start({ kind: 'own', ports: [port1] }, [port1]), await start({ kind: 'ask', port: port2 }, [port2])]
  await runAll(threads, warmMs)
  const found: ThreadReport[][] = []
  for (let round = 0; round < rounds; round += 1) found.push(await runAll(threads, roundMs))
  await Promise.all(threads.map((thread) => thread.terminate()))
  const cost = (which: number): number => median(found.map((reports) => reports[which]!.cpuNs / 1000 / reports[1]!.done))
  return { ownerUs: cost(0), askerUs: cost(1) }
}

/** Linux only: null elsewhere, where the CPU time of a thread cannot be read. Errors: a stream or decision that fails. */
export async function benchThreads(rounds: number): Promise<ThreadFigures | null> {
  if (process.platform !== 'linux') return null
  const rows = [await compare('relay', rounds), await compare('decide', rounds)]
  return { rows, ...await ownerCost(rounds) }
}
