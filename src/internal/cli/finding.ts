/** One thing that was looked at. */
export interface Finding {
  readonly subject: string
  readonly status: "ok" | "warning" | "problem"
  /** What is there. */
  readonly detail: string
  /** What to do about it, in one line. */
  readonly fix?: string
}

/** @internal */
export const ok = (subject: string, detail: string): Finding => ({ subject, status: "ok", detail })

/** @internal */
export const warning = (subject: string, detail: string, fix: string): Finding => ({
  subject,
  status: "warning",
  detail,
  fix
})

/** @internal */
export const problem = (subject: string, detail: string, fix: string): Finding => ({
  subject,
  status: "problem",
  detail,
  fix
})
