// Shapes of calls, as the server gives them. Source: /openapi.json, docs/protocol.md.

/**
 * @typedef {{ user_id: string, state: "ringing" | "joined" | "left" | "declined" | "missed" | "busy",
 *   device_id: string | null, joined_at: string | null, left_at: string | null }} CallPerson
 *
 * @typedef {{ call_id: string, conversation_id: string, initiated_by: string, call_type: "audio" | "video",
 *   status: string, epoch: number, started_at: string, ring_until: string | null, answered_at: string | null,
 *   ended_at: string | null, duration_s: number, end_reason: string | null,
 *   participants: CallPerson[] }} CallShape
 *
 * @typedef {{ call_id: string, call: CallShape, ice_servers: RTCIceServer[], signaling_url: string }} JoinedCall
 *
 * @typedef {{ peer_id: string, user_id: string, device_id: string, instance_id: string, audio: boolean,
 *   video: boolean, screen: boolean, is_connected: boolean }} PeerShape
 *
 * A frame of the signaling socket; which fields it has its type says.
 * @typedef {{ type: string, ref?: number, epoch?: number, code?: string, peer_id?: string, peers?: PeerShape[],
 *   resume_token?: string, peer?: PeerShape, restart_ice?: boolean, sender_id?: string, user_id?: string,
 *   sdp?: string, sealed?: unknown, candidate?: RTCIceCandidateInit, muted?: boolean, stream_id?: string,
 *   recording_id?: string, by?: string, consent?: boolean, reason?: string, call?: CallShape }} Frame
 *
 * @typedef {{ recording_id: string, call_id: string, conversation_id: string, recorded_by: string,
 *   media_type: string, is_encrypted: boolean, state: string, started_at: string, begun_at: string | null,
 *   ended_at: string | null, end_reason: string | null, size_bytes: number, file_id: string | null,
 *   consents: { user_id: string, consent: boolean | null }[] }} RecordingShape
 *
 * Seals a description for one device, and opens one: each throws when it cannot.  ready: so that others can seal for
 * this one.  recordingKey: tells the conversation the key of a recording, and gives what makes ciphertext of it.
 * @typedef {{ ready: () => Promise<void>, seal: (userId: string, deviceId: string, type: string, content: object) => Promise<unknown>,
 *   unseal: (userId: string, content: unknown) => Promise<{ type: string, content: Record<string, unknown>,
 *     device: string }>,
 *   recordingKey: (conversationId: string, recording: { recording_id: string, call_id: string,
 *     media_type: string }) => Promise<Sealer>,
 * }} Sealing
 *
 * add: one piece after the other; what is sealed by then, which may be nothing.  end: seals what is left.
 * @typedef {{ add: (piece: ArrayBuffer) => Promise<ArrayBuffer>, end: () => Promise<ArrayBuffer> }} Sealer
 */

export {};
