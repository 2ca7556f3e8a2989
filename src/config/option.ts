/** One entry of the option table: flags, environment, file key, rules and words of one setting. */

export type OptionValue = boolean | number | string | null
export type OptionType = 'boolean' | 'integer' | 'number' | 'string' | 'path' | 'endpoint'
export type OptionOrigin = 'dynamo' | 'dynamo-removed' | 'warmpath'

/** An older spelling: accepted, with one warning that names the current one. */
export interface OlderName {
  readonly name: string
  /** True when `python -m dynamo.router` 1.6.1 still takes it; such names go before ours when a prefix is looked up. */
  readonly inDynamo16: boolean
}

/** Why a value that differs from the default is refused in this version. */
export interface Unavailable<T extends OptionValue = OptionValue> {
  readonly why: string
  readonly mend: string
  /** Which values are refused; left out: all but the default. */
  refuses?(value: T): boolean
}

export interface Option<T extends OptionValue = OptionValue> {
  /** Kebab-case: key of the `--config` file, and the flag without its dashes. */
  readonly name: string
  /** False: environment and file only. */
  readonly isFlag: boolean
  readonly olderNames: readonly OlderName[]
  /** The first one that is set counts. */
  readonly env: readonly string[]
  readonly olderEnv: readonly string[]
  readonly type: OptionType
  readonly unit: string | null
  readonly default: T
  /** What stands for the default in help, when the value says too little. */
  readonly defaultText: string | null
  readonly minimum: number | null
  readonly maximum: number | null
  readonly choices: readonly string[] | null
  /** Choices that are accepted and mean another one. */
  readonly choiceAliases: Readonly<Record<string, string>>
  /** '' and 'None' mean the default. */
  readonly isNullable: boolean
  readonly origin: OptionOrigin
  readonly since: string
  /** Release of Dynamo in which the name is gone. */
  readonly removedIn: string | null
  /** Dynamo 1.6 calls it deprecated; it stays in Warmpath. */
  readonly isDeprecatedInDynamo: boolean
  /** Set: using it gives one warning that names this replacement. */
  readonly replacement: string | null
  readonly unavailable: Unavailable<T> | null
  /** Set: the value is accepted and governs nothing here; one line says why. */
  readonly noEffect: string | null
  /** Keys of options of which one must be set; otherwise the value governs nothing, and one line says so. */
  readonly needs: readonly string[]
  /** Name in the `router:` mapping of a policy file, or null when it has none. */
  readonly policyName: string | null
  readonly isHidden: boolean
  readonly isSecret: boolean
  readonly section: string
  readonly help: string
}

/** What an entry of the table states; the rest has plain defaults. */
export type OptionInput<T extends OptionValue> = Partial<Omit<Option<T>, 'type' | 'default' | 'name'>> & {
  readonly name: string
  readonly section: string
  readonly help: string
}

const plain = {
  isFlag: true, olderNames: [], env: [], olderEnv: [], unit: null, defaultText: null, minimum: null, maximum: null,
  choices: null, choiceAliases: {}, isNullable: false, origin: 'dynamo' as OptionOrigin, since: 'Dynamo 1.1', removedIn: null,
  isDeprecatedInDynamo: false, replacement: null, unavailable: null, noEffect: null, needs: [], policyName: null, isHidden: false, isSecret: false,
}

const make = <T extends OptionValue>(type: OptionType, value: T, input: OptionInput<T>): Option<T> =>
  ({ ...plain, ...input, type, default: value })

export const booleanOption = (value: boolean, input: OptionInput<boolean>): Option<boolean> => make('boolean', value, input)
export const integerOption = (value: number, input: OptionInput<number>): Option<number> => make('integer', value, input)
export const numberOption = (value: number, input: OptionInput<number>): Option<number> => make('number', value, input)
export const textOption = (value: string, input: OptionInput<string>): Option<string> => make('string', value, input)
/** Unset unless given. */
export const maybeInteger = (input: OptionInput<number | null>): Option<number | null> => make('integer', null as number | null, input)
export const maybeNumber = (input: OptionInput<number | null>): Option<number | null> => make('number', null as number | null, input)
export const maybeText = (input: OptionInput<string | null>): Option<string | null> => make('string', null as string | null, input)
export const maybePath = (input: OptionInput<string | null>): Option<string | null> => make('path', null as string | null, input)
export const endpointOption = (input: OptionInput<string | null>): Option<string | null> => make('endpoint', null as string | null, input)
/** Like `endpointOption`, with a default. */
export const endpointWithDefault = (value: string, input: OptionInput<string>): Option<string> => make('endpoint', value, input)

export type OptionTable = Readonly<Record<string, Option>>
/** The typed values of a table, by its keys. */
export type ValuesOf<Table> = { readonly [Key in keyof Table]: Table[Key] extends Option<infer T> ? T : never }

/** A spelling on the command line and what it stands for. */
export interface FlagSpelling {
  readonly spelling: string
  readonly key: string
  readonly option: Option
  /** The value that a switch sets; null for options that take a value. */
  readonly switchValue: boolean | null
  readonly isOlder: boolean
  readonly inDynamo16: boolean
}

/** Every spelling that the command line of a table takes, `--no-` forms and older names included. */
export function flagSpellings(table: OptionTable): FlagSpelling[] {
  const spellings: FlagSpelling[] = []
  for (const [key, option] of Object.entries(table)) {
    if (!option.isFlag) continue
    const names = [
      { name: option.name, inDynamo16: option.origin === 'dynamo', isOlder: false },
      ...option.olderNames.map((older) => ({ ...older, isOlder: true })),
    ]
    for (const { name, inDynamo16, isOlder } of names) {
      const isSwitch = option.type === 'boolean'
      spellings.push({ spelling: `--${name}`, key, option, switchValue: isSwitch ? true : null, isOlder, inDynamo16 })
      if (isSwitch) spellings.push({ spelling: `--no-${name}`, key, option, switchValue: false, isOlder, inDynamo16 })
    }
  }
  return spellings
}
