// The shapes the server speaks, as far as the page reads them. Source: /openapi.json.

/**
 * @typedef {object} Person
 * @property {string} user_id
 * @property {string} username
 * @property {string} display_name
 * @property {string | null} avatar_url
 * @property {string | null} [status]
 */

/**
 * @typedef {object} Own what one is told of oneself
 * @property {string} [email]
 * @property {"user" | "admin"} [role]
 * @property {boolean} [email_verified]
 * @property {string} [created_at]
 * @property {string} [delete_at] when the account goes, if it is to
 */

/** @typedef {Person & Own} User */

/** @typedef {"owner" | "admin" | "member"} Role */

/** @typedef {Person & { role: Role, joined_at: string, last_read_seq: number }} Membership */

/**
 * @typedef {object} Settings
 * @property {boolean} is_e2ee_enabled
 * @property {boolean} recording_enabled
 * @property {number} message_retention_days
 * @property {boolean} history_visible
 * @property {number} disappear_after_s
 */

/**
 * @typedef {object} Conversation
 * @property {string} conversation_id
 * @property {"direct" | "group"} type
 * @property {string | null} title
 * @property {string | null} avatar_url
 * @property {string} created_by
 * @property {string} created_at
 * @property {string} updated_at
 * @property {number} last_seq
 * @property {number} first_seq
 * @property {number} change
 * @property {Settings} settings
 * @property {Role} my_role
 * @property {number} unread_count
 * @property {number} [unread_mentions]
 * @property {number} [last_read_seq] up to where one has read
 * @property {Message | null} last_message
 * @property {Membership[]} [participants] all of them, once the conversation was opened; of a direct one always
 * @property {Message[]} [messages] of a first sync
 * @property {boolean} [is_muted]
 * @property {string | null} [muted_until]
 */

/** @typedef {{ emoji: string, count: number, mine?: boolean }} Reaction */

/**
 * @typedef {object} Message
 * @property {string} message_id
 * @property {string} client_message_id
 * @property {string} conversation_id
 * @property {string} sender_id
 * @property {number | null} seq null: not stored yet
 * @property {string} content
 * @property {"text" | "image" | "video" | "audio" | "file" | "system"} message_type
 * @property {boolean} is_encrypted
 * @property {string | null} reply_to
 * @property {string[]} file_ids
 * @property {Record<string, any> | null} metadata
 * @property {Reaction[]} reactions
 * @property {number | null} change
 * @property {string} sent_at
 * @property {string | null} edited_at
 * @property {boolean} [is_earlier] an earlier version, which is not to be found by what it says
 * @property {string | null} deleted_at
 * @property {string | null} [expires_at]
 * @property {boolean} [provisional] accepted by the server, and not stored yet
 */

/** @typedef {{ option_id: string, text: string, vote_count: number }} PollOption */

/**
 * @typedef {object} Poll
 * @property {string} poll_id
 * @property {string} conversation_id
 * @property {string} question
 * @property {"single" | "multi"} poll_type
 * @property {PollOption[]} options
 * @property {string[]} [my_option_ids]
 * @property {number} total_votes
 * @property {number} voter_count
 * @property {boolean} allow_vote_change
 * @property {string | null} expires_at
 * @property {string | null} closed_at
 * @property {string} created_by
 * @property {string} created_at
 * @property {number} change
 */

/** @typedef {{ status: "online" | "away" | "busy" | "offline", last_seen: string | null }} Presence */

/**
 * @typedef {object} Server
 * @property {string} version
 * @property {string} server_name
 * @property {"open" | "invite" | "closed"} registration
 * @property {string[]} features
 * @property {Record<string, number>} limits
 * @property {boolean} e2ee_default_direct
 * @property {string | null} vapid_public_key
 * @property {boolean} sends_mail
 */

/**
 * @typedef {object} File
 * @property {string} file_id
 * @property {string} file_name
 * @property {number} file_size
 * @property {string} content_type
 * @property {"uploading" | "verifying" | "completed" | "deleted" | "failed"} status
 * @property {boolean} is_encrypted
 * @property {Record<string, any> | null} encryption_metadata
 * @property {string} owner_id
 * @property {string} created_at
 */

/**
 * How a file is sealed; what reads it is `crypto/files.js`.
 * @typedef {{ cipher: string, key: string, iv: string, part_bytes: number }} FileKey
 */

/**
 * What a message says of a file it carries. Nobody has checked it: the sender's client wrote it.
 * @typedef {object} Described
 * @property {string} name
 * @property {number} size
 * @property {string} content_type
 * @property {number} [width] in pixels, of a picture or a film
 * @property {number} [height]
 */

/** @typedef {{ file_id: string } & Partial<Described> & Partial<FileKey>} Attachment a file of a message */

/**
 * A file of a message of one's own, on its way.
 * @typedef {Described & {
 *   upload_id: string,
 *   is_encrypted: boolean,
 *   state: "waiting" | "paused" | "done" | "failed" | "lost",
 *   code?: string,
 *   begun?: number,
 *   file_id?: string,
 *   secret?: FileKey,
 * }} Sending state: lost: the browser no longer has it.  begun: how often it was announced
 */

/**
 * @typedef {object} Notification that something has happened, and where
 * @property {string} notification_id
 * @property {"message" | "mention" | "reply" | "reaction" | "added" | "announcement" | "missed_call"} kind
 * @property {string} ref the message, conversation, announcement or call
 * @property {string | null} conversation_id
 * @property {string | null} actor_id
 * @property {string} created_at
 * @property {string | null} read_at
 */

/** @typedef {{ announcement_id: string, text: string, created_at: string, until: string | null }} Announcement */

/** @typedef {{ type: string, [field: string]: any }} Event what comes over a socket */

/**
 * What one wants to say.
 * @typedef {object} Draft
 * @property {string} conversation_id
 * @property {string} content
 * @property {Message["message_type"]} [message_type]
 * @property {string | null} [reply_to]
 * @property {string[]} [file_ids]
 * @property {Record<string, any> | null} [metadata]
 * @property {Sending[]} [files] that are uploaded first
 */

/**
 * A message of one's own on its way.
 * @typedef {Draft & {
 *   client_message_id: string,
 *   queued_at: number,
 *   tab: string,
 *   state: "uploading" | "waiting" | "accepted" | "failed",
 *   code?: string,
 * }} Outgoing
 */

export {};
