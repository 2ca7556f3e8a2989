/** `strftime_now`: local time by Python's directives, in English as in the C locale. */
import { TemplateError } from '../template-error.ts'

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December']

const two = (value: number): string => String(value).padStart(2, '0')
const twelve = (hours: number): number => hours % 12 || 12
const dayOfYear = (now: Date): number => Math.round((Date.UTC(now.getFullYear(), now.getMonth(), now.getDate()) - Date.UTC(now.getFullYear(), 0, 0)) / 86_400_000)

const DIRECTIVES: ReadonlyMap<string, (now: Date) => string> = new Map<string, (now: Date) => string>([
  ['%', () => '%'],
  ['n', () => '\n'],
  ['t', () => '\t'],
  ['Y', (now) => String(now.getFullYear())],
  ['y', (now) => two(now.getFullYear() % 100)],
  ['m', (now) => two(now.getMonth() + 1)],
  ['d', (now) => two(now.getDate())],
  ['e', (now) => String(now.getDate()).padStart(2, ' ')],
  ['H', (now) => two(now.getHours())],
  ['I', (now) => two(twelve(now.getHours()))],
  ['M', (now) => two(now.getMinutes())],
  ['S', (now) => two(now.getSeconds())],
  ['f', (now) => `${String(now.getMilliseconds()).padStart(3, '0')}000`],
  ['p', (now) => (now.getHours() < 12 ? 'AM' : 'PM')],
  ['A', (now) => DAYS[now.getDay()] as string],
  ['a', (now) => (DAYS[now.getDay()] as string).slice(0, 3)],
  ['B', (now) => MONTHS[now.getMonth()] as string],
  ['b', (now) => (MONTHS[now.getMonth()] as string).slice(0, 3)],
  ['h', (now) => (MONTHS[now.getMonth()] as string).slice(0, 3)],
  ['j', (now) => String(dayOfYear(now)).padStart(3, '0')],
  ['w', (now) => String(now.getDay())],
  ['u', (now) => String(now.getDay() || 7)],
  ['F', (now) => `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`],
  ['T', (now) => `${two(now.getHours())}:${two(now.getMinutes())}:${two(now.getSeconds())}`],
  ['R', (now) => `${two(now.getHours())}:${two(now.getMinutes())}`],
  ['D', (now) => `${two(now.getMonth() + 1)}/${two(now.getDate())}/${two(now.getFullYear() % 100)}`],
  ['s', (now) => String(Math.floor(now.getTime() / 1_000))],
  // The time that Python's template sees has no zone.
  ['Z', () => ''],
  ['z', () => ''],
])

/** Errors: `TemplateError` naming a directive that is not supported. */
export function strftime(now: Date, format: string): string {
  return format.replace(/%(-?)(.?)/gsu, (whole, dash: string, letter: string) => {
    const directive = DIRECTIVES.get(letter)
    if (directive === undefined) throw new TemplateError('failed', `strftime_now: the directive "${whole}" is not supported`)
    const text = directive(now)
    return dash === '' ? text : text.replace(/^[0 ]+(?=.)/, '')
  })
}

/** The first directive of a format that is not supported, or null. */
export function unsupportedDirective(format: string): string | null {
  for (const [whole, , letter] of format.matchAll(/%(-?)(.?)/gsu)) if (!DIRECTIVES.has(letter as string)) return whole
  return null
}
